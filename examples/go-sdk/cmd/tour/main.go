// SPDX-License-Identifier: MIT

// Tour shows what a program does with an HSM over the network, step by step.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"ferrohsm.example/go-sdk/hsm"
)

const hybrid = "MLKEM768-X25519-SHA3-256"

type tour struct {
	client *hsm.Client
	run    string // in the name of every key of this run
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := take(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func take(ctx context.Context) error {
	client, err := hsm.New(hsm.Settings{
		Endpoint:   os.Getenv("FERROHSM_ENDPOINT"),
		Token:      os.Getenv("FERROHSM_AUTH_TOKEN"),
		CABundle:   os.Getenv("FERROHSM_CA_BUNDLE"),
		ClientCert: os.Getenv("FERROHSM_CLIENT_CERT"),
		ClientKey:  os.Getenv("FERROHSM_CLIENT_KEY"),
	})
	if err != nil {
		return err
	}
	t := tour{client, strings.ToLower(hsm.NewIdempotencyKey()[:8])}
	steps := []func(context.Context) error{
		t.sign, t.encrypt, t.encapsulate, t.list, t.request, t.serve, t.destroy,
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (t tour) create(ctx context.Context, algorithm, name string) (hsm.Key, error) {
	new := hsm.NewKey{Algorithm: algorithm, Name: "tour-" + name + "-" + t.run, Tags: []string{t.run}}
	return t.client.CreateKey(ctx, new, hsm.NewIdempotencyKey())
}

func (t tour) sign(ctx context.Context) error {
	key, err := t.create(ctx, "Ed25519", "sign")
	if err != nil {
		return err
	}
	message := []byte("release 1.0")
	made, err := t.client.Sign(ctx, key.ID, message)
	if err != nil {
		return err
	}
	if err := t.client.Verify(ctx, key.ID, message, made.Bytes); err != nil {
		return err
	}
	fmt.Println("signed; the record in the trail has the request id", made.RequestID)
	var problem *hsm.Problem
	err = t.client.Verify(ctx, key.ID, []byte("release 6.6"), made.Bytes)
	if !errors.As(err, &problem) {
		return fmt.Errorf("a wrong signature was taken for a good one: %v", err)
	}
	fmt.Println("another message:", problem.Code)
	return nil
}

func (t tour) encrypt(ctx context.Context) error {
	// Sent twice under one idempotency key, as after an answer that was lost.
	new := hsm.NewKey{Algorithm: "AES-256-GCM", Name: "tour-aes-" + t.run, Tags: []string{t.run}}
	once := hsm.NewIdempotencyKey()
	key, err := t.client.CreateKey(ctx, new, once)
	if err != nil {
		return err
	}
	again, err := t.client.CreateKey(ctx, new, once)
	if err != nil || again.ID != key.ID {
		return fmt.Errorf("one request made two keys: %v", err)
	}
	aad := []byte("box 7")
	sealed, err := t.client.Encrypt(ctx, key.ID, []byte("treasure"), aad)
	if err != nil {
		return err
	}
	if err := t.client.RotateKey(ctx, key.ID, hsm.NewIdempotencyKey()); err != nil {
		return err
	}
	opened, err := t.client.Decrypt(ctx, key.ID, sealed, aad)
	if err != nil {
		return err
	}
	fmt.Printf("decrypted after a rotation: %s\n", opened)
	return nil
}

func (t tour) encapsulate(ctx context.Context) error {
	key, err := t.create(ctx, hybrid, "kem")
	if err != nil {
		return err
	}
	ours, err := t.client.Encapsulate(ctx, key.ID)
	if err != nil {
		return err
	}
	theirs, err := t.client.Decapsulate(ctx, key.ID, ours.Ciphertext)
	if err != nil {
		return err
	}
	if !bytes.Equal(ours.SharedSecret, theirs) {
		return errors.New("the two sides have different secrets")
	}
	fmt.Printf("%s: both sides have the same %d bytes\n", hybrid, len(theirs))
	return nil
}

func (t tour) list(ctx context.Context) error {
	keys, err := t.client.ListKeys(ctx, t.run, 2)
	if err != nil {
		return err
	}
	names := make([]string, len(keys))
	for i, key := range keys {
		names[i] = key.Name
	}
	fmt.Printf("%d keys, newest first: %s\n", len(names), strings.Join(names, ", "))
	return nil
}

func (t tour) destroy(ctx context.Context) error {
	name := "tour-sign-" + t.run
	err := t.client.DestroyKey(ctx, name, hsm.NewIdempotencyKey())
	var pending *hsm.ApprovalPending
	if errors.As(err, &pending) {
		fmt.Println("waiting for approval", pending.Approval.ID)
		state, err := t.client.Wait(ctx, pending.Approval)
		if err != nil {
			return err
		}
		if state != "granted" {
			return fmt.Errorf("the approval is %s", state)
		}
		if err := t.client.DestroyKey(ctx, name, hsm.NewIdempotencyKey()); err != nil {
			return err
		}
	} else if err != nil {
		return err
	}
	fmt.Println("destroyed")
	return nil
}
