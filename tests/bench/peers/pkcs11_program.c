// SPDX-License-Identifier: MIT
// What a program does with a token over PKCS #11 2.40: it finds a key and signs in a loop.
//
// Modules need to export C_GetFunctionList only. Each function returns 0, or the CK_RV that
// PKCS #11 answered.

#include <dlfcn.h>
#include <string.h>

typedef unsigned long Number;
typedef Number (*Function)();

typedef struct {
    Number type;
    void *value;
    Number size;
} Attribute;

typedef struct {
    Number mechanism;
    void *parameter;
    Number size;
} Mechanism;

// Places in CK_FUNCTION_LIST, behind its version.
enum {
    INITIALIZE = 0,
    GET_SLOT_LIST = 4,
    OPEN_SESSION = 12,
    FIND_INIT = 26,
    FIND = 27,
    FIND_FINAL = 28,
    SIGN_INIT = 42,
    SIGN = 43,
};

enum { NO_FUNCTION = 0x54, NO_KEY = 0x60, SERIAL = 0x4, PRIVATE_KEY = 3, ECDSA = 0x1041 };

struct List {
    unsigned char version[2];
    Function at[68];
};

static struct List *call;
static Number session, key;

// Opens the token of the first slot, which needs no login, and finds its first private key.
Number bench_open(const char *module) {
    Number slot, slots = 1, answer, found = 0, kind = PRIVATE_KEY;
    Attribute wanted = {0, &kind, sizeof kind};
    void *library = dlopen(module, RTLD_NOW | RTLD_LOCAL);
    Function functions = library ? (Function)dlsym(library, "C_GetFunctionList") : NULL;
    if (functions == NULL || functions(&call))
        return NO_FUNCTION;
    if ((answer = call->at[INITIALIZE](NULL))
        || (answer = call->at[GET_SLOT_LIST]((unsigned char)1, &slot, &slots))
        || (answer = call->at[OPEN_SESSION](slot, (Number)SERIAL, NULL, NULL, &session))
        || (answer = call->at[FIND_INIT](session, &wanted, (Number)1))
        || (answer = call->at[FIND](session, &key, (Number)1, &found))
        || (answer = call->at[FIND_FINAL](session)))
        return answer;
    return found ? 0 : NO_KEY;
}

// Signs a digest of 32 bytes.
Number bench_sign(long times) {
    unsigned char digest[32] = {0}, signature[64];
    Mechanism ecdsa = {ECDSA, NULL, 0};
    Number answer = 0;
    for (long i = 0; !answer && i < times; i++) {
        Number size = sizeof signature;
        if (!(answer = call->at[SIGN_INIT](session, &ecdsa, key)))
            answer = call->at[SIGN](
                session, digest, (Number)sizeof digest, signature, &size);
    }
    return answer;
}
