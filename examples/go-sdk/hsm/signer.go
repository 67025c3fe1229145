// SPDX-License-Identifier: MIT

package hsm

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
)

// Signer is a crypto.Signer whose key stays in the HSM. It stands for the version that
// was current when it was made: after a rotation it signs no more.
type Signer struct {
	client  *Client
	ctx     context.Context
	key     string
	version int
	public  crypto.PublicKey
}

// NewSigner returns a signer of an RSA, ECDSA or Ed25519 key. Each signature is asked for
// under ctx, because crypto.Signer has no room for one.
func (c *Client) NewSigner(ctx context.Context, key string) (*Signer, error) {
	shown, err := c.PublicKey(ctx, key)
	if err != nil {
		return nil, err
	}
	public, err := x509.ParsePKIXPublicKey(shown.DER)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", shown.Algorithm, err)
	}
	return &Signer{c, ctx, key, shown.Version, public}, nil
}

// Public returns the public key.
func (s *Signer) Public() crypto.PublicKey { return s.public }

// Sign signs a digest; for Ed25519, which hashes inside, the message itself.
func (s *Signer) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	body, err := s.what(digest, opts)
	if err != nil {
		return nil, err
	}
	made, err := s.client.sign(s.ctx, s.key, body)
	if err != nil {
		return nil, err
	}
	if made.Version != s.version {
		return nil, errors.New("the key was rotated after the signer was made")
	}
	return made.Bytes, nil
}

func (s *Signer) what(digest []byte, opts crypto.SignerOpts) (map[string]any, error) {
	if opts.HashFunc() == 0 {
		return map[string]any{"message": digest}, nil
	}
	hash, known := map[crypto.Hash]string{
		crypto.SHA256: "SHA-256", crypto.SHA384: "SHA-384", crypto.SHA512: "SHA-512",
	}[opts.HashFunc()]
	if !known {
		return nil, errors.New("the HSM hashes with SHA-256, SHA-384 and SHA-512 only")
	}
	body := map[string]any{"digest": digest, "hash": hash}
	if _, isRSA := s.public.(*rsa.PublicKey); isRSA {
		body["scheme"] = "RSASSA-PKCS1-v1_5"
		if pss, isPSS := opts.(*rsa.PSSOptions); isPSS {
			if !fits(pss, opts.HashFunc()) {
				return nil, errors.New("the HSM salts PSS with as many bytes as the digest has")
			}
			body["scheme"] = "RSASSA-PSS"
		}
	}
	return body, nil
}

func fits(pss *rsa.PSSOptions, hash crypto.Hash) bool {
	switch pss.SaltLength {
	case rsa.PSSSaltLengthEqualsHash, rsa.PSSSaltLengthAuto, hash.Size():
		return true
	}
	return false
}
