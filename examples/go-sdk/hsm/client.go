// SPDX-License-Identifier: MIT

// Package hsm is a small client of FerroHSM's REST API over the standard library: copy
// it into your program.
package hsm

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

const (
	attempts     = 5
	longestPause = 10 * time.Second
	mostAnswer   = 16 << 20
	timeout      = 30 * time.Second
)

// Settings say where the server is and who asks.
type Settings struct {
	Endpoint   string // such as https://localhost:8443
	Token      string // bearer token; empty if a client certificate authenticates
	CABundle   string // file of the authorities that the server is checked by
	ClientCert string // file; with ClientKey for mutual TLS
	ClientKey  string // file
}

// Client speaks to one server. It is safe for concurrent use.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// New returns a client, to which nothing is sent yet.
func New(s Settings) (*Client, error) {
	if !strings.HasPrefix(s.Endpoint, "https://") {
		return nil, errors.New("the endpoint must be https://HOST[:PORT]")
	}
	pem, err := os.ReadFile(s.CABundle)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate", s.CABundle)
	}
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
	if s.ClientCert != "" {
		pair, err := tls.LoadX509KeyPair(s.ClientCert, s.ClientKey)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: false}
	return &Client{
		base:  s.Endpoint + "/api/v1",
		token: s.Token,
		http:  &http.Client{Transport: transport, Timeout: timeout, CheckRedirect: stay},
	}, nil
}

// stay follows no redirect, which would carry token and data to another server.
func stay(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// request is something to send, as often as it takes.
type request struct {
	method, path   string
	body           any
	idempotencyKey string
	member         string // that the answer has, if it is one of an HSM
}

// NewIdempotencyKey returns a fresh key for one change.
func NewIdempotencyKey() string { return rand.Text() }

// send sends a request until there is an answer that another try would not change, and
// reads that into result. It returns the id of the request. A use whose answer got lost
// is made, and counted, once more.
func (c *Client) send(ctx context.Context, r request, result any) (string, error) {
	var body []byte
	if r.body != nil {
		var err error
		if body, err = json.Marshal(r.body); err != nil {
			return "", err
		}
	}
	for attempt := 1; ; attempt++ {
		response, err := c.once(ctx, r, body)
		isLast := attempt == attempts
		if err != nil {
			if isLast || ctx.Err() != nil {
				return "", err
			}
			if err := pause(ctx, attempt, ""); err != nil {
				return "", err
			}
			continue
		}
		if isLast || !mayPass(response.StatusCode) {
			return read(response, r.member, result)
		}
		said := response.Header.Get("Retry-After")
		response.Body.Close()
		if err := pause(ctx, attempt, said); err != nil {
			return "", err
		}
	}
}

func (c *Client) once(ctx context.Context, r request, body []byte) (*http.Response, error) {
	sent, err := http.NewRequestWithContext(ctx, r.method, c.base+r.path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if c.token != "" {
		sent.Header.Set("Authorization", "Bearer "+c.token)
	}
	if r.body != nil {
		sent.Header.Set("Content-Type", "application/json")
	}
	if r.idempotencyKey != "" {
		// The same at each try: what was done already is not done again.
		sent.Header.Set("Idempotency-Key", r.idempotencyKey)
	}
	return c.http.Do(sent)
}

func mayPass(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable
}

// pause waits as the server says, or longer each time.
func pause(ctx context.Context, attempt int, said string) error {
	wanted := 100 * time.Millisecond << attempt
	if seconds, err := strconv.Atoi(said); err == nil {
		wanted = time.Duration(seconds) * time.Second
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(min(wanted, longestPause)):
		return nil
	}
}

func read(response *http.Response, member string, result any) (string, error) {
	defer response.Body.Close()
	id := response.Header.Get("X-Request-Id")
	body, err := io.ReadAll(io.LimitReader(response.Body, mostAnswer+1))
	if err != nil {
		return id, err
	}
	if len(body) > mostAnswer {
		return id, errors.New("the answer is too long")
	}
	pending := &ApprovalPending{}
	switch {
	case response.StatusCode == http.StatusAccepted:
		member, result = "approval_id", &pending.Approval
	case response.StatusCode >= http.StatusMultipleChoices:
		problem := &Problem{Status: response.StatusCode, RequestID: id}
		_ = json.Unmarshal(body, problem) // without JSON the status says enough
		return id, problem
	}
	var members map[string]json.RawMessage
	err = json.Unmarshal(body, &members)
	if value := string(members[member]); err == nil && (value == "" || value == "null") {
		err = errors.New("it lacks " + member)
	}
	if err == nil && result != nil {
		err = json.Unmarshal(body, result)
	}
	if err != nil {
		return id, fmt.Errorf("the answer (status %d) is not one of an HSM: %w", response.StatusCode, err)
	}
	if response.StatusCode == http.StatusAccepted {
		return id, pending
	}
	return id, nil
}
