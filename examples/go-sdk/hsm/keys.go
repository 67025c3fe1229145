// SPDX-License-Identifier: MIT

package hsm

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

// Key is what the HSM says of one. Byte strings of the API are base64 in JSON, which
// encoding/json does for []byte by itself.
type Key struct {
	ID        string   `json:"key_id"`
	Name      string   `json:"name"`
	Algorithm string   `json:"algorithm"`
	State     string   `json:"state"`
	Tags      []string `json:"tags"`
}

// NewKey says which key to make.
type NewKey struct {
	Algorithm string   `json:"algorithm"`
	Name      string   `json:"name,omitempty"`
	Tags      []string `json:"tags,omitempty"`
}

// PublicKey is one version's public key.
type PublicKey struct {
	Version   int    `json:"version"`
	Algorithm string `json:"algorithm"`
	DER       []byte `json:"der"` // SubjectPublicKeyInfo
}

// Signature is a signature and the version that made it.
type Signature struct {
	Version   int    `json:"version"`
	Bytes     []byte `json:"signature"`
	RequestID string `json:"-"` // of the record in the trail
}

// Encapsulation is a fresh shared secret and what its other holder gets.
type Encapsulation struct {
	Ciphertext   []byte `json:"ciphertext"`
	SharedSecret []byte `json:"shared_secret"`
}

// CreateKey makes a key, once for each idempotency key.
func (c *Client) CreateKey(ctx context.Context, new NewKey, idempotencyKey string) (Key, error) {
	var key Key
	_, err := c.send(ctx, request{http.MethodPost, "/keys", new, idempotencyKey, "key_id"}, &key)
	return key, err
}

// RotateKey makes a new version from fresh material.
func (c *Client) RotateKey(ctx context.Context, key, idempotencyKey string) error {
	_, err := c.send(ctx, request{http.MethodPost, path(key, "/rotate"), struct{}{}, idempotencyKey, "key_id"}, nil)
	return err
}

// DestroyKey destroys all material of a key.
func (c *Client) DestroyKey(ctx context.Context, key, idempotencyKey string) error {
	_, err := c.send(ctx, request{http.MethodDelete, path(key, ""), nil, idempotencyKey, "key_id"}, nil)
	return err
}

// PublicKey returns the public key of the current version.
func (c *Client) PublicKey(ctx context.Context, key string) (PublicKey, error) {
	var found PublicKey
	_, err := c.send(ctx, request{method: http.MethodGet, path: path(key, "/public-key"), member: "der"}, &found)
	return found, err
}

// ListKeys gives all keys with a tag, newest first, a page at a time.
func (c *Client) ListKeys(ctx context.Context, tag string, perPage int) ([]Key, error) {
	var all []Key
	query := url.Values{"tags": {tag}, "per_page": {strconv.Itoa(perPage)}}
	for {
		var page struct {
			Items []Key  `json:"items"`
			Next  string `json:"next_cursor"`
		}
		if _, err := c.send(ctx, request{method: http.MethodGet, path: "/keys?" + query.Encode(), member: "items"}, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Items...)
		if page.Next == "" {
			return all, nil
		}
		query.Set("cursor", page.Next)
	}
}

// Sign signs a message by the algorithm's default scheme.
func (c *Client) Sign(ctx context.Context, key string, message []byte) (Signature, error) {
	return c.sign(ctx, key, map[string]any{"message": message})
}

func (c *Client) sign(ctx context.Context, key string, body map[string]any) (Signature, error) {
	var made Signature
	id, err := c.send(ctx, request{method: http.MethodPost, path: path(key, "/sign"), body: body, member: "signature"}, &made)
	made.RequestID = id
	return made, err
}

// Verify returns a Problem with code "signature_mismatch" for a wrong signature.
func (c *Client) Verify(ctx context.Context, key string, message, signature []byte) error {
	body := map[string]any{"message": message, "signature": signature}
	_, err := c.send(ctx, request{method: http.MethodPost, path: path(key, "/verify"), body: body, member: "version"}, nil)
	return err
}

// Encrypt returns a ciphertext that names its key and version.
func (c *Client) Encrypt(ctx context.Context, key string, plaintext, aad []byte) ([]byte, error) {
	var sealed struct {
		Ciphertext []byte `json:"ciphertext"`
	}
	body := map[string]any{"plaintext": plaintext, "aad": aad}
	_, err := c.send(ctx, request{method: http.MethodPost, path: path(key, "/encrypt"), body: body, member: "ciphertext"}, &sealed)
	return sealed.Ciphertext, err
}

// Decrypt returns what Encrypt was given, whatever version the key is at now.
func (c *Client) Decrypt(ctx context.Context, key string, ciphertext, aad []byte) ([]byte, error) {
	var opened struct {
		Plaintext []byte `json:"plaintext"`
	}
	body := map[string]any{"ciphertext": ciphertext, "aad": aad}
	_, err := c.send(ctx, request{method: http.MethodPost, path: path(key, "/decrypt"), body: body, member: "plaintext"}, &opened)
	return opened.Plaintext, err
}

// Encapsulate makes a fresh shared secret for a KEM key.
func (c *Client) Encapsulate(ctx context.Context, key string) (Encapsulation, error) {
	var made Encapsulation
	_, err := c.send(ctx, request{method: http.MethodPost, path: path(key, "/encapsulate"), body: struct{}{}, member: "shared_secret"}, &made)
	return made, err
}

// Decapsulate returns the shared secret of an encapsulation.
func (c *Client) Decapsulate(ctx context.Context, key string, ciphertext []byte) ([]byte, error) {
	var found struct {
		SharedSecret []byte `json:"shared_secret"`
	}
	body := map[string]any{"ciphertext": ciphertext}
	_, err := c.send(ctx, request{method: http.MethodPost, path: path(key, "/decapsulate"), body: body, member: "shared_secret"}, &found)
	return found.SharedSecret, err
}

func path(key, rest string) string { return "/keys/" + url.PathEscape(key) + rest }
