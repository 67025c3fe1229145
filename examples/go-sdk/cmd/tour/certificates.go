// SPDX-License-Identifier: MIT

package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"time"

	"ferrohsm.example/go-sdk/hsm"
)

// request signs a request for a certificate by a key in the HSM.
func (t tour) request(ctx context.Context) error {
	signer, err := t.signer(ctx, "RSA-2048", "csr")
	if err != nil {
		return err
	}
	template := &x509.CertificateRequest{
		Subject:            pkix.Name{CommonName: "tour.example"},
		DNSNames:           []string{"tour.example"},
		SignatureAlgorithm: x509.SHA256WithRSAPSS,
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, signer)
	if err != nil {
		return err
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return err
	}
	if err := request.CheckSignature(); err != nil {
		return err
	}
	fmt.Println("the request for a certificate is signed by its key")
	return nil
}

// serve serves TLS 1.3 on loopback by a key in the HSM, and connects to it.
func (t tour) serve(ctx context.Context) error {
	signer, err := t.signer(ctx, "EC-P256", "tls")
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "localhost"},
		DNSNames:              []string{"localhost"},
		NotBefore:             time.Now().Add(-time.Minute),
		NotAfter:              time.Now().Add(time.Hour),
		BasicConstraintsValid: true,
		IsCA:                  true,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		return err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: signer}},
	})
	if err != nil {
		return err
	}
	defer listener.Close()
	go greet(listener)
	return ask(listener.Addr(), certificate)
}

func (t tour) signer(ctx context.Context, algorithm, name string) (*hsm.Signer, error) {
	key, err := t.create(ctx, algorithm, name)
	if err != nil {
		return nil, err
	}
	return t.client.NewSigner(ctx, key.ID)
}

func greet(listener net.Listener) {
	for {
		connection, err := listener.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(connection, "hello")
		_ = connection.Close()
	}
}

func ask(address net.Addr, certificate *x509.Certificate) error {
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	config := &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13}
	connection, err := tls.Dial("tcp", address.String(), config)
	if err != nil {
		return err
	}
	defer connection.Close()
	said, err := io.ReadAll(connection)
	if err != nil {
		return err
	}
	if connection.ConnectionState().Version != tls.VersionTLS13 {
		return errors.New("this is not TLS 1.3")
	}
	fmt.Printf("TLS 1.3 served by a key in the HSM: %s\n", said)
	return nil
}
