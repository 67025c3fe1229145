-- SPDX-License-Identifier: MIT
-- Tables of a cluster. Text is compared byte by byte, whatever the database's locale.

CREATE TABLE meta (
    name text COLLATE "C" PRIMARY KEY,
    value bytea NOT NULL
);

-- A row without created_at is not in the index; what is stored of its key stays.
CREATE TABLE keys (
    n bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    key_id text COLLATE "C" PRIMARY KEY,
    created_at bigint,
    name text,
    algorithm text COLLATE "C",
    state text COLLATE "C",
    tags text,
    generation bigint,
    operations text,
    digest text,
    owner text,
    usages text,
    claim text COLLATE "C",
    document bytea
);
CREATE UNIQUE INDEX keys_claim ON keys (claim) WHERE claim IS NOT NULL;
CREATE INDEX keys_live ON keys (created_at, key_id COLLATE "C")
    WHERE state <> 'destroyed';
CREATE INDEX keys_state ON keys (state, created_at, key_id COLLATE "C");
CREATE INDEX keys_algorithm ON keys (algorithm, created_at, key_id COLLATE "C");
CREATE INDEX keys_tags ON keys USING gin ((tags::jsonb) jsonb_path_ops);

CREATE TABLE blobs (
    key_id text COLLATE "C" NOT NULL,
    version integer NOT NULL,
    blob bytea NOT NULL,
    PRIMARY KEY (key_id, version)
);

-- An operation belongs to a key, or was aborted and can't happen any more.
CREATE TABLE operations (
    operation_id text COLLATE "C" PRIMARY KEY,
    key_id text COLLATE "C",
    aborted boolean NOT NULL DEFAULT false,
    CHECK (aborted = (key_id IS NULL))
);
CREATE INDEX operations_key ON operations (key_id);

CREATE TABLE uses (
    material_id text COLLATE "C" PRIMARY KEY,
    value bytea NOT NULL
);

CREATE TABLE approvals (
    approval_id text COLLATE "C" PRIMARY KEY,
    generation bigint NOT NULL,
    state text COLLATE "C" NOT NULL,
    requester text COLLATE "C" NOT NULL,
    digest text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    closed_at bigint NOT NULL,
    record bytea NOT NULL
);
CREATE INDEX approvals_state ON approvals (state, created_at, approval_id);
CREATE INDEX approvals_requester
    ON approvals (requester, state, created_at, approval_id);
CREATE INDEX approvals_digest ON approvals (digest, created_at, approval_id);
CREATE INDEX approvals_order ON approvals (created_at, approval_id);

CREATE TABLE account (
    bucket integer PRIMARY KEY,
    value bytea NOT NULL
);

-- One row: where the changes stand. Locked last by every change.
CREATE TABLE cluster (
    id integer PRIMARY KEY DEFAULT 0 CHECK (id = 0),
    revision bigint NOT NULL,
    head bytea NOT NULL,
    set_digest bytea NOT NULL DEFAULT '',
    approvals_digest bytea NOT NULL DEFAULT '',
    trust_digest bytea NOT NULL DEFAULT '',
    mac bytea NOT NULL DEFAULT '',
    level integer NOT NULL DEFAULT 0
);

-- A change without a subject concerns everything.
CREATE TABLE changes (
    revision bigint PRIMARY KEY,
    kind text NOT NULL,
    subject text COLLATE "C",
    generation bigint NOT NULL DEFAULT 0,
    before text NOT NULL DEFAULT '',
    digest text NOT NULL DEFAULT '',
    head bytea NOT NULL
);

-- At most one row: people, token keys and certificates that no node accepts any more.
CREATE TABLE trust (
    id integer PRIMARY KEY DEFAULT 0 CHECK (id = 0),
    content bytea NOT NULL
);

-- Updated by whoever fences a node, by nobody else.
CREATE TABLE fence (
    node text COLLATE "C" PRIMARY KEY,
    epoch bigint NOT NULL,
    instance text
);

-- A row is written by its node.
CREATE TABLE nodes (
    node text COLLATE "C" PRIMARY KEY,
    beat bigint NOT NULL DEFAULT 0,
    applied bigint NOT NULL DEFAULT 0,
    level integer NOT NULL DEFAULT 0,
    policy text NOT NULL DEFAULT '',
    version text NOT NULL DEFAULT '',
    log_id text NOT NULL DEFAULT '',
    settled bigint NOT NULL DEFAULT 0
);

-- The head mark changes with every group of records: room for it stays on its page.
CREATE TABLE logs (
    log_id text COLLATE "C" PRIMARY KEY,
    node text COLLATE "C" NOT NULL,
    head bytea NOT NULL,
    pruned_next bigint,
    pruned_record bigint
) WITH (fillfactor = 20);
CREATE UNIQUE INDEX logs_node ON logs (node);
CREATE TABLE records (
    log_id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    line bytea NOT NULL,
    PRIMARY KEY (log_id, seq)
);
CREATE TABLE facts (
    log_id text COLLATE "C" NOT NULL,
    first_seq bigint NOT NULL,
    line bytea NOT NULL,
    PRIMARY KEY (log_id, first_seq)
);
CREATE TABLE baselines (
    log_id text COLLATE "C" NOT NULL,
    next_seq bigint NOT NULL,
    number bigint NOT NULL,
    line bytea NOT NULL,
    PRIMARY KEY (log_id, next_seq, number)
);

CREATE TABLE leases (
    name text COLLATE "C" PRIMARY KEY,
    node text COLLATE "C" NOT NULL,
    epoch bigint NOT NULL
);

-- State of the servers: sessions and single-use tokens.
CREATE TABLE shared (
    kind text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    owner text COLLATE "C" NOT NULL,
    value bytea NOT NULL,
    expires bigint NOT NULL,
    PRIMARY KEY (kind, id)
);
CREATE INDEX shared_owner ON shared (kind, owner, expires);
CREATE INDEX shared_expires ON shared (expires);

-- Failures of the network addresses, with the time of the last one.
CREATE TABLE failures (
    name text COLLATE "C" PRIMARY KEY,
    count bigint NOT NULL,
    last bigint NOT NULL
);
CREATE INDEX failures_last ON failures (last);

INSERT INTO cluster (revision, head) VALUES (0, decode(repeat('00', 32), 'hex'));
INSERT INTO changes (revision, kind, head)
    VALUES (0, 'begin', decode(repeat('00', 32), 'hex'));
