// SPDX-License-Identifier: MIT
// What OpenSSL does in a loop of its own, without an interpreter around it.
//
// Each function returns 0, or -1 when OpenSSL refused something.

#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

static const unsigned char MESSAGE[32];

// Returns a key from PKCS #8, or a null pointer.
void *bench_key(const unsigned char *der, long size) {
    return d2i_AutoPrivateKey(NULL, &der, size);
}

// Returns a fresh key of an algorithm by its name, or a null pointer.
void *bench_new_key(const char *name) {
    return EVP_PKEY_Q_keygen(NULL, NULL, name);
}

// Digest may be null where the algorithm hashes inside.
int bench_sign(void *key, const char *digest, int pss, long times) {
    size_t room = EVP_PKEY_get_size(key);
    unsigned char *signature = malloc(room);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    int done = signature != NULL && context != NULL;
    for (long i = 0; done && i < times; i++) {
        EVP_PKEY_CTX *options = NULL;
        size_t size = room;
        EVP_MD_CTX_reset(context);
        done = EVP_DigestSignInit_ex(context, &options, digest, NULL, NULL, key, NULL) > 0
            && (!pss
                || (EVP_PKEY_CTX_set_rsa_padding(options, RSA_PKCS1_PSS_PADDING) > 0
                    && EVP_PKEY_CTX_set_rsa_pss_saltlen(options, RSA_PSS_SALTLEN_DIGEST) > 0))
            && EVP_DigestSign(context, signature, &size, MESSAGE, sizeof MESSAGE) > 0;
    }
    EVP_MD_CTX_free(context);
    free(signature);
    return done ? 0 : -1;
}

// AES-256-GCM; the key is set once, the nonce for each message.
int bench_encrypt(int size, long times) {
    unsigned char key[32] = {1}, nonce[12] = {0}, tag[16];
    unsigned char *plain = calloc(1, size), *sealed = malloc(size);
    EVP_CIPHER_CTX *context = EVP_CIPHER_CTX_new();
    int done = plain != NULL && sealed != NULL && context != NULL
        && EVP_EncryptInit_ex(context, EVP_aes_256_gcm(), NULL, key, nonce) > 0;
    for (long i = 0; done && i < times; i++) {
        int written;
        memcpy(nonce, &i, sizeof i);
        done = EVP_EncryptInit_ex(context, NULL, NULL, NULL, nonce) > 0
            && EVP_EncryptUpdate(context, sealed, &written, plain, size) > 0
            && EVP_EncryptFinal_ex(context, sealed + written, &written) > 0
            && EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, sizeof tag, tag) > 0;
    }
    EVP_CIPHER_CTX_free(context);
    free(plain);
    free(sealed);
    return done ? 0 : -1;
}
