// SPDX-License-Identifier: MIT
// What SoftHSM2 does with token objects in a loop, over PKCS #11 2.40.
//
// Only the few types and numbers of the standard that the loop needs are declared here.
// Each function returns 0, or the CK_RV that PKCS #11 answered.

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long Number;

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

typedef struct {
    Number hash, mask, salt_bytes;
} PssParameters;

typedef struct {
    unsigned char *nonce;
    Number nonce_bytes, nonce_bits;
    unsigned char *aad;
    Number aad_bytes, tag_bits;
} GcmParameters;

enum {
    NO_FUNCTION = 0x54,
    SERIAL_AND_WRITABLE = 0x6,
    SECURITY_OFFICER = 0,
    USER = 1,
    IS_TOKEN = 0x1,
    VALUE_BYTES = 0x161,
    ENCRYPTS = 0x104,
    SIGNS = 0x108,
    VERIFIES = 0x10a,
    MODULUS_BITS = 0x121,
    PUBLIC_EXPONENT = 0x122,
    EC_PARAMETERS = 0x180,
};

enum Kind { RSA_2048, RSA_4096, P256, ED25519, AES };

static Number (*pk_initialize)(void *);
static Number (*slots)(unsigned char, Number *, Number *);
static Number (*init_token)(Number, unsigned char *, Number, unsigned char *);
static Number (*open_session)(Number, Number, void *, void *, Number *);
static Number (*login)(Number, Number, unsigned char *, Number);
static Number (*logout)(Number);
static Number (*init_pin)(Number, unsigned char *, Number);
static Number (*generate_pair)(
    Number, Mechanism *, Attribute *, Number, Attribute *, Number, Number *, Number *);
static Number (*generate_key)(Number, Mechanism *, Attribute *, Number, Number *);
static Number (*sign_init)(Number, Mechanism *, Number);
static Number (*sign)(Number, unsigned char *, Number, unsigned char *, Number *);
static Number (*encrypt_init)(Number, Mechanism *, Number);
static Number (*encrypt)(Number, unsigned char *, Number, unsigned char *, Number *);

static Number session;

static int load(const char *module) {
    void *library = dlopen(module, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return 0;
#define FIND(place, name)                                                              \
    if ((*(void **)&place = dlsym(library, name)) == NULL)                             \
        return 0
    FIND(pk_initialize, "C_Initialize");
    FIND(slots, "C_GetSlotList");
    FIND(init_token, "C_InitToken");
    FIND(open_session, "C_OpenSession");
    FIND(login, "C_Login");
    FIND(logout, "C_Logout");
    FIND(init_pin, "C_InitPIN");
    FIND(generate_pair, "C_GenerateKeyPair");
    FIND(generate_key, "C_GenerateKey");
    FIND(sign_init, "C_SignInit");
    FIND(sign, "C_Sign");
    FIND(encrypt_init, "C_EncryptInit");
    FIND(encrypt, "C_Encrypt");
    return 1;
}

static Number first_slot(Number *slot) {
    Number all[8], count = 8;
    Number answer = slots(1, all, &count);
    *slot = all[0];
    return answer;
}

// Makes a token with this PIN where SOFTHSM2_CONF says, and logs in.
Number bench_open(const char *module, const char *text) {
    Number slot, answer, size = strlen(text);
    unsigned char *pin = (unsigned char *)text, label[32];
    memset(label, ' ', sizeof label);
    if (!load(module))
        return NO_FUNCTION;
    // The number of a slot changes when its token is made.
    if ((answer = pk_initialize(NULL)) || (answer = first_slot(&slot))
        || (answer = init_token(slot, pin, size, label)) || (answer = first_slot(&slot))
        || (answer = open_session(slot, SERIAL_AND_WRITABLE, NULL, NULL, &session))
        || (answer = login(session, SECURITY_OFFICER, pin, size))
        || (answer = init_pin(session, pin, size)) || (answer = logout(session)))
        return answer;
    return login(session, USER, pin, size);
}

// Makes a key, or pair of keys, that is kept in the token.
Number bench_generate(int kind, Number *key) {
    static unsigned char yes = 1, exponent[] = {1, 0, 1};
    static unsigned char p256[] = {6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7};
    static unsigned char ed25519[] = {
        0x13, 12, 'e', 'd', 'w', 'a', 'r', 'd', 's', '2', '5', '5', '1', '9'};
    Number public, bits = kind == RSA_4096 ? 4096 : 2048, bytes = 32;
    Attribute private_parts[] = {{IS_TOKEN, &yes, 1}, {SIGNS, &yes, 1}};
    Attribute rsa[] = {
        {IS_TOKEN, &yes, 1},
        {VERIFIES, &yes, 1},
        {MODULUS_BITS, &bits, sizeof bits},
        {PUBLIC_EXPONENT, exponent, sizeof exponent}};
    Attribute curve[] = {
        {IS_TOKEN, &yes, 1}, {VERIFIES, &yes, 1}, {EC_PARAMETERS, p256, sizeof p256}};
    Attribute aes[] = {
        {IS_TOKEN, &yes, 1}, {ENCRYPTS, &yes, 1}, {VALUE_BYTES, &bytes, sizeof bytes}};
    Mechanism make_rsa = {0x0, NULL, 0}, make_ec = {0x1040, NULL, 0};
    Mechanism make_edwards = {0x1055, NULL, 0}, make_aes = {0x1080, NULL, 0};
    switch (kind) {
    case AES:
        return generate_key(session, &make_aes, aes, 3, key);
    case P256:
        return generate_pair(session, &make_ec, curve, 3, private_parts, 2, &public, key);
    case ED25519:
        curve[2] = (Attribute){EC_PARAMETERS, ed25519, sizeof ed25519};
        return generate_pair(
            session, &make_edwards, curve, 3, private_parts, 2, &public, key);
    default:
        return generate_pair(session, &make_rsa, rsa, 4, private_parts, 2, &public, key);
    }
}

// Signs 32 bytes; for ECDSA they are the digest, which spares SoftHSM2 a hash.
Number bench_sign(int kind, Number key, long times) {
    unsigned char message[32] = {0}, signature[512];
    PssParameters pss = {0x250, 2, 32};
    Mechanism rsa = {0x43, &pss, sizeof pss}, ec = {0x1041, NULL, 0};
    Mechanism edwards = {0x1057, NULL, 0};
    Mechanism *chosen = kind == P256 ? &ec : kind == ED25519 ? &edwards : &rsa;
    Number answer = 0;
    for (long i = 0; !answer && i < times; i++) {
        Number size = sizeof signature;
        if (!(answer = sign_init(session, chosen, key)))
            answer = sign(session, message, sizeof message, signature, &size);
    }
    return answer;
}

// AES-256-GCM with a 12-byte nonce and a 16-byte tag.
Number bench_encrypt(Number key, long bytes, long times) {
    unsigned char nonce[12] = {0}, *plain = calloc(1, bytes), *sealed = malloc(bytes + 16);
    GcmParameters gcm = {nonce, 12, 96, NULL, 0, 128};
    Mechanism chosen = {0x1087, &gcm, sizeof gcm};
    Number answer = plain == NULL || sealed == NULL;
    for (long i = 0; !answer && i < times; i++) {
        Number size = bytes + 16;
        memcpy(nonce, &i, sizeof i);
        if (!(answer = encrypt_init(session, &chosen, key)))
            answer = encrypt(session, plain, bytes, sealed, &size);
    }
    free(plain);
    free(sealed);
    return answer;
}
