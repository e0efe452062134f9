PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE items (
		kind       TEXT NOT NULL,
		id         TEXT NOT NULL,
		version    INTEGER NOT NULL,
		due_at     TEXT,
		repository TEXT,
		state      TEXT,
		cursor     TEXT,
		ttl        INTEGER,
		item       TEXT NOT NULL,
		PRIMARY KEY (kind, id)
	) STRICT;
INSERT INTO items VALUES('request','r1',3,'2026-03-01T12:00:00.000000000Z','42','accepted','2026-03-01T12:00:00.000000000Z#r1',NULL,'{"version":3,"writer":"api-1/1","updated_at":"2026-03-01T12:00:00Z","due_at":"2026-03-01T12:00:00Z","id":"r1","state":"accepted","created_at":"2026-03-01T12:00:00Z","caller":"github octocat","repository":{"id":"42","name":"alphagov/example","owner_id":"7","owner":"alphagov"},"origin":{"run_id":"9876543210"},"trace":"","account":"123456789012","region":"eu-west-2","type":"spot","labels":["large"],"mode":"shared","spec":"default","own_label":"","body_hash":"","timeout_s":3600,"tries":0,"sends":1,"sent_at":"2026-03-01T12:00:00Z","give_up_at":"2026-03-01T12:15:00Z","history":[{"at":"2026-03-01T12:00:00Z","state":"accepted"}]}');
CREATE INDEX items_due ON items (due_at, kind, id) WHERE due_at IS NOT NULL;
CREATE INDEX items_list ON items (kind, cursor) WHERE cursor IS NOT NULL;
CREATE INDEX items_ttl ON items (ttl) WHERE ttl IS NOT NULL;
CREATE INDEX items_open ON items (repository) WHERE kind = 'request' AND state IN ('accepted', 'waiting');
COMMIT;
PRAGMA user_version = 2;
