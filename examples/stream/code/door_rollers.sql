-- Door rollers: which cabin has which lot, and what is still to be changed.
-- Run with: sqlite3 doors.db < door_rollers.sql

CREATE TABLE IF NOT EXISTS roller_set (
    cabin      INTEGER NOT NULL CHECK (cabin BETWEEN 1 AND 32),
    leaf       TEXT    NOT NULL CHECK (leaf IN ('left', 'right')),
    mark       TEXT    NOT NULL DEFAULT 'plain',  -- 'triangle' is the bad lot
    changed_on TEXT,                              -- ISO date, NULL if still old
    initials   TEXT,
    PRIMARY KEY (cabin, leaf)
);

INSERT OR IGNORE INTO roller_set (cabin, leaf, mark, changed_on, initials) VALUES
    (9,  'left',  'triangle', '2026-10-06', 'JH'),
    (9,  'right', 'triangle', NULL,         NULL),
    (14, 'left',  'triangle', '2026-08-19', 'PR'),
    (14, 'right', 'plain',    NULL,         NULL);

-- Still to do, the bad lot first.
SELECT cabin, leaf, mark
FROM roller_set
WHERE changed_on IS NULL
ORDER BY (mark = 'triangle') DESC, cabin, leaf;

-- Who has done how many?
SELECT initials, COUNT(*) AS sets_done
FROM roller_set
WHERE changed_on IS NOT NULL
GROUP BY initials
ORDER BY sets_done DESC;
