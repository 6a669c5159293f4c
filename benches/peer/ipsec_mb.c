/* intel-ipsec-mb's direct API over a burst, as the peer of the benchmark "aead". */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <intel-ipsec-mb.h>

struct peer_op {
    const struct gcm_key_data *key;
    const uint8_t *nonce; /* 12 bytes */
    const uint8_t *aad;   /* 8 bytes */
    uint8_t *text;        /* in place */
    uint64_t len;
    uint8_t *tag;
};

/* vectors: 0 for the best that the processor has, 2 for AVX2, 1 for AVX. */
IMB_MGR *peer_manager(int vectors)
{
    IMB_MGR *mgr = alloc_mb_mgr(0);
    if (mgr == NULL)
        return NULL;
    if (vectors == 2)
        init_mb_mgr_avx2(mgr);
    else if (vectors == 1)
        init_mb_mgr_avx(mgr);
    else
        init_mb_mgr_auto(mgr, NULL);
    return mgr;
}

struct gcm_key_data *peer_key(IMB_MGR *mgr, const uint8_t *key, int bits)
{
    struct gcm_key_data *expanded = aligned_alloc(64, (sizeof *expanded + 63) & ~(size_t)63);
    if (expanded != NULL)
        (bits == 128 ? mgr->gcm128_pre : mgr->gcm256_pre)(key, expanded);
    return expanded;
}

void peer_seal(IMB_MGR *mgr, int bits, const struct peer_op *op, size_t n)
{
    aes_gcm_enc_dec_t seal = bits == 128 ? mgr->gcm128_enc : mgr->gcm256_enc;
    struct gcm_context_data ctx;
    for (; n > 0; n--, op++)
        seal(op->key, &ctx, op->text, op->text, op->len, op->nonce, op->aad, 8, op->tag, 16);
}

/* How many were authentic. */
size_t peer_open(IMB_MGR *mgr, int bits, const struct peer_op *op, size_t n)
{
    aes_gcm_enc_dec_t open = bits == 128 ? mgr->gcm128_dec : mgr->gcm256_dec;
    struct gcm_context_data ctx;
    size_t authentic = 0;
    for (; n > 0; n--, op++) {
        uint64_t is[2], should[2];
        open(op->key, &ctx, op->text, op->text, op->len, op->nonce, op->aad, 8, (uint8_t *) is, 16);
        memcpy(should, op->tag, 16);
        authentic += ((is[0] ^ should[0]) | (is[1] ^ should[1])) == 0;
    }
    return authentic;
}

/* There is no counter mode in the direct API: GCM without its end. */
void peer_peek(IMB_MGR *mgr, int bits, const struct peer_op *op, size_t n)
{
    struct gcm_context_data ctx;
    for (; n > 0; n--, op++) {
        if (bits == 128) {
            mgr->gcm128_init(op->key, &ctx, op->nonce, op->aad, 8);
            mgr->gcm128_dec_update(op->key, &ctx, op->text, op->text, op->len);
        } else {
            mgr->gcm256_init(op->key, &ctx, op->nonce, op->aad, 8);
            mgr->gcm256_dec_update(op->key, &ctx, op->text, op->text, op->len);
        }
    }
}
