// SPDX-License-Identifier: MIT

package hsm

import "fmt"

// Problem is what the server says when it refuses or fails (RFC 9457).
type Problem struct {
	Status    int    `json:"status"`
	Code      string `json:"code"`   // stable name, such as "access_denied"
	Detail    string `json:"detail"` // one sentence for people
	RequestID string `json:"-"`      // stands in the server's log and trail, too
}

func (p *Problem) Error() string {
	return fmt.Sprintf("status %d: %q: %q (%s)", p.Status, p.Code, p.Detail, p.RequestID)
}

// ApprovalPending says that other people must agree first.
type ApprovalPending struct {
	Approval Approval
}

func (p *ApprovalPending) Error() string {
	return "approval " + p.Approval.ID + " is needed"
}
