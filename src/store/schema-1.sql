CREATE TABLE rollouts (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    model            TEXT    NOT NULL,
    candidate        INTEGER NOT NULL,
    candidate_digest TEXT    NOT NULL,
    primary_version  INTEGER NOT NULL,
    primary_digest   TEXT    NOT NULL,
    stage            INTEGER NOT NULL,
    state            TEXT    NOT NULL,
    plan             TEXT    NOT NULL,
    progress         TEXT    NOT NULL,
    started_at       INTEGER NOT NULL,
    stage_at         INTEGER NOT NULL,
    updated_at       INTEGER NOT NULL,
    reason           TEXT    NOT NULL
) STRICT;

-- One at a time: what a second one would measure is the first one's doing.
CREATE UNIQUE INDEX one_rollout_a_model ON rollouts (model) WHERE state IN ('running', 'paused');

CREATE INDEX rollouts_by_model ON rollouts (model, id);

CREATE TABLE steering (
    model    TEXT    PRIMARY KEY,
    steering TEXT    NOT NULL,
    wish     TEXT    NOT NULL,
    since    INTEGER NOT NULL
) STRICT;

CREATE TABLE history (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    at          INTEGER NOT NULL,
    model       TEXT    NOT NULL,
    who         TEXT    NOT NULL,
    what        TEXT    NOT NULL,
    from_text   TEXT    NOT NULL,
    to_text     TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    digest_from TEXT    NOT NULL,
    digest_to   TEXT    NOT NULL,
    figures     TEXT    NOT NULL
) STRICT;

CREATE INDEX history_by_model ON history (model, id);
