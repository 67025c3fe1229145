// SPDX-License-Identifier: MIT

package hsm

import (
	"context"
	"net/http"
	"time"
)

const pollEvery = 500 * time.Millisecond

// Approval is what other people are asked.
type Approval struct {
	ID      string   `json:"approval_id"`
	State   string   `json:"state"`
	Digest  string   `json:"digest"`
	Missing []string `json:"missing"`
}

// Wait returns the state of an approval once it is not pending any more.
func (c *Client) Wait(ctx context.Context, approval Approval) (string, error) {
	for {
		var now Approval
		if _, err := c.send(ctx, request{method: http.MethodGet, path: "/approvals/" + approval.ID, member: "state"}, &now); err != nil {
			return "", err
		}
		if now.State != "pending" {
			return now.State, nil
		}
		select {
		case <-ctx.Done():
			return now.State, ctx.Err()
		case <-time.After(pollEvery):
		}
	}
}
