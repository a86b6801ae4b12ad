-- The tables of Raven's bars, in TimescaleDB (either edition) or in plain PostgreSQL:
--
--     psql -d raven -f create_bars_table.sql
--
-- `raven init-db` runs the same script. It may run any number of times: what is there stays, what is missing is made,
-- an older version is brought up to date, a newer one is refused. It runs as a whole or not at all.
--
-- How a version follows another: what the tables of version n lack, version n + 1 adds in a block of its own under
-- "Versions" (ALTER TABLE ... ADD COLUMN IF NOT EXISTS ... and the like, harmless when it is there), the CREATE
-- statements say what a new table looks like, and the number goes up here, at the end, and in
-- raven/sinks/timescale/schema.py. A hypertable with compressed chunks takes a new column only without NOT NULL, or
-- with a default that is a constant.
\set ON_ERROR_STOP on

BEGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL lock_timeout = '30s';

DO $$
DECLARE
    found bigint;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('raven_schema'));
    IF to_regclass('raven_schema') IS NOT NULL THEN
        SELECT version INTO found FROM raven_schema;
        IF found > 1 THEN
            RAISE EXCEPTION 'the tables are of version %, and this script makes version 1', found
                USING HINT = 'use the version of Raven that made them, or a newer one', ERRCODE = '55000';
        END IF;
    END IF;
END
$$;

-- Tables

CREATE TABLE IF NOT EXISTS time_bars (
    venue            text NOT NULL,
    symbol           text NOT NULL,
    spec             text NOT NULL,
    open_time        timestamptz NOT NULL,
    close_time       timestamptz NOT NULL,
    open             double precision NOT NULL,
    high             double precision NOT NULL,
    low              double precision NOT NULL,
    close            double precision NOT NULL,
    volume           double precision NOT NULL,
    quote_volume     double precision NOT NULL,
    vwap             double precision NOT NULL,
    buy_volume       double precision NOT NULL,
    buy_quote_volume double precision NOT NULL,
    buy_ticks        bigint NOT NULL,
    sell_ticks       bigint NOT NULL,
    total_ticks      bigint NOT NULL,
    first_trade_id   bigint,
    last_trade_id    bigint,
    complete         boolean,
    revision         bigint NOT NULL
);

CREATE TABLE IF NOT EXISTS tick_imbalance_bars (
    venue              text NOT NULL,
    symbol             text NOT NULL,
    spec               text NOT NULL,
    open_time          timestamptz NOT NULL,
    close_time         timestamptz NOT NULL,
    open               double precision NOT NULL,
    high               double precision NOT NULL,
    low                double precision NOT NULL,
    close              double precision NOT NULL,
    volume             double precision NOT NULL,
    quote_volume       double precision NOT NULL,
    vwap               double precision NOT NULL,
    buy_volume         double precision NOT NULL,
    buy_quote_volume   double precision NOT NULL,
    buy_ticks          bigint NOT NULL,
    sell_ticks         bigint NOT NULL,
    total_ticks        bigint NOT NULL,
    first_trade_id     bigint,
    last_trade_id      bigint,
    complete           boolean,
    revision           bigint NOT NULL,
    theta              double precision NOT NULL,
    threshold          double precision NOT NULL,
    expected_size      double precision,
    expected_imbalance double precision
);

CREATE TABLE IF NOT EXISTS raven_positions (
    writer     text NOT NULL,
    table_name text NOT NULL,
    upstream   text NOT NULL,
    journal_id text NOT NULL,
    sequence   bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (writer, table_name, upstream)
);

CREATE TABLE IF NOT EXISTS raven_schema (
    version    bigint NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX IF NOT EXISTS raven_schema_one_row ON raven_schema ((true));

-- Versions

-- 1: bars of one table need not expect a size or an imbalance.
DO $$
DECLARE
    forbids name;
BEGIN
    FOR forbids IN
        SELECT attname FROM pg_attribute
        WHERE attrelid = 'tick_imbalance_bars'::regclass AND attnotnull
            AND attname IN ('expected_size', 'expected_imbalance')
    LOOP
        EXECUTE format('ALTER TABLE tick_imbalance_bars ALTER COLUMN %I DROP NOT NULL', forbids);
    END LOOP;
END
$$;

-- Hypertables, where the extension is there and loaded by the server; where it came later, existing rows move along

DO $$
DECLARE
    home text;
    bars regclass;
BEGIN
    -- the loader's own setting: who may not read shared_preload_libraries can read this one
    IF current_setting('timescaledb.disable_load', true) IS NOT NULL
        AND EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')
        AND NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb')
    THEN
        CREATE EXTENSION timescaledb WITH SCHEMA public;
    END IF;
    SELECT quote_ident(nspname) INTO home
    FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
    WHERE extname = 'timescaledb';
    IF home IS NULL THEN
        RETURN;
    END IF;
    FOREACH bars IN ARRAY ARRAY['time_bars', 'tick_imbalance_bars']::regclass[] LOOP
        EXECUTE format(
            'SELECT %s.create_hypertable(%L::regclass, %L::name, chunk_time_interval => interval ''7 days'','
            ' if_not_exists => true, migrate_data => true, create_default_indexes => false)',
            home, bars, 'open_time'
        );
    END LOOP;
END
$$;

-- Indexes: what identifies a bar; for time bars the same one serves the latest bars of a symbol

CREATE UNIQUE INDEX IF NOT EXISTS time_bars_identity
    ON time_bars (venue, symbol, spec, open_time);
CREATE UNIQUE INDEX IF NOT EXISTS tick_imbalance_bars_identity
    ON tick_imbalance_bars (venue, symbol, spec, first_trade_id, open_time);
CREATE INDEX IF NOT EXISTS tick_imbalance_bars_latest
    ON tick_imbalance_bars (venue, symbol, spec, open_time DESC);

-- Compression after 30 days, where the licence has it; the Apache edition does not know the words, so they are data

DO $$
DECLARE
    home text;
    bars record;
BEGIN
    SELECT quote_ident(nspname) INTO home
    FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace
    WHERE extname = 'timescaledb';
    IF home IS NULL OR current_setting('timescaledb.license', true) IS DISTINCT FROM 'timescale' THEN
        RETURN;
    END IF;
    FOR bars IN
        SELECT given.name, given.name::regclass AS relation, given.key, is_on.compression_enabled AS compressed
        FROM (VALUES
            ('time_bars', 'open_time DESC'),
            ('tick_imbalance_bars', 'open_time DESC, first_trade_id DESC')
        ) AS given (name, key)
        JOIN pg_class ON pg_class.oid = given.name::regclass
        JOIN timescaledb_information.hypertables AS is_on
            ON is_on.hypertable_name = pg_class.relname
            AND is_on.hypertable_schema = pg_class.relnamespace::regnamespace::name
    LOOP
        IF NOT bars.compressed THEN
            EXECUTE format(
                'ALTER TABLE %s SET (timescaledb.compress, timescaledb.compress_segmentby = %L,'
                ' timescaledb.compress_orderby = %L)',
                bars.relation, 'venue, symbol, spec', bars.key
            );
        END IF;
        EXECUTE format(
            'SELECT %s.add_compression_policy(%L::regclass, interval ''30 days'', if_not_exists => true)',
            home, bars.relation
        );
    END LOOP;
END
$$;

-- What everything means

COMMENT ON TABLE time_bars IS
    'Time bars, one row each: the highest revision of (venue, symbol, spec, open_time).';
COMMENT ON COLUMN time_bars.venue IS 'Where it was traded: BINANCE_SPOT, BINANCE_FUTURES.';
COMMENT ON COLUMN time_bars.symbol IS 'The venue''s own name of what was traded, upper case.';
COMMENT ON COLUMN time_bars.spec IS 'Which bars: 1m, 5m, 1h.';
COMMENT ON COLUMN time_bars.open_time IS 'Begin of the window, inclusive; exact to the microsecond, UTC.';
COMMENT ON COLUMN time_bars.close_time IS 'End of the window, exclusive; UTC.';
COMMENT ON COLUMN time_bars.open IS 'Price of the first trade, in quote per base unit.';
COMMENT ON COLUMN time_bars.high IS 'Highest price, in quote per base unit.';
COMMENT ON COLUMN time_bars.low IS 'Lowest price, in quote per base unit.';
COMMENT ON COLUMN time_bars.close IS 'Price of the last trade, in quote per base unit.';
COMMENT ON COLUMN time_bars.volume IS 'Quantity traded, in base units.';
COMMENT ON COLUMN time_bars.quote_volume IS 'Sum of price times quantity, in quote units.';
COMMENT ON COLUMN time_bars.vwap IS 'quote_volume / volume, in quote per base unit.';
COMMENT ON COLUMN time_bars.buy_volume IS 'Quantity of trades whose aggressor bought, in base units.';
COMMENT ON COLUMN time_bars.buy_quote_volume IS 'Price times quantity of trades whose aggressor bought, in quote units.';
COMMENT ON COLUMN time_bars.buy_ticks IS 'Number of trades whose aggressor bought.';
COMMENT ON COLUMN time_bars.sell_ticks IS 'Number of trades whose aggressor sold.';
COMMENT ON COLUMN time_bars.total_ticks IS 'Number of trades.';
COMMENT ON COLUMN time_bars.first_trade_id IS 'The venue''s id of the first trade.';
COMMENT ON COLUMN time_bars.last_trade_id IS 'The venue''s id of the last trade.';
COMMENT ON COLUMN time_bars.complete IS 'Whether the ids prove that no trade is missing.';
COMMENT ON COLUMN time_bars.revision IS '2 * total_ticks + complete; a higher one replaces a lower one.';

COMMENT ON TABLE tick_imbalance_bars IS
    'Bars that a trade closed, not the clock, one row each: the highest revision of (venue, symbol, spec, first_trade_id).';
COMMENT ON COLUMN tick_imbalance_bars.venue IS 'Where it was traded: BINANCE_SPOT, BINANCE_FUTURES.';
COMMENT ON COLUMN tick_imbalance_bars.symbol IS 'The venue''s own name of what was traded, upper case.';
COMMENT ON COLUMN tick_imbalance_bars.spec IS 'Which bars: a label of the parameters they are made with.';
COMMENT ON COLUMN tick_imbalance_bars.open_time IS 'Time of the first trade; exact to the microsecond, UTC.';
COMMENT ON COLUMN tick_imbalance_bars.close_time IS 'Time of the last trade; UTC.';
COMMENT ON COLUMN tick_imbalance_bars.open IS 'Price of the first trade, in quote per base unit.';
COMMENT ON COLUMN tick_imbalance_bars.high IS 'Highest price, in quote per base unit.';
COMMENT ON COLUMN tick_imbalance_bars.low IS 'Lowest price, in quote per base unit.';
COMMENT ON COLUMN tick_imbalance_bars.close IS 'Price of the last trade, in quote per base unit.';
COMMENT ON COLUMN tick_imbalance_bars.volume IS 'Quantity traded, in base units.';
COMMENT ON COLUMN tick_imbalance_bars.quote_volume IS 'Sum of price times quantity, in quote units.';
COMMENT ON COLUMN tick_imbalance_bars.vwap IS 'quote_volume / volume, in quote per base unit.';
COMMENT ON COLUMN tick_imbalance_bars.buy_volume IS 'Quantity of trades whose aggressor bought, in base units.';
COMMENT ON COLUMN tick_imbalance_bars.buy_quote_volume IS 'Price times quantity of trades whose aggressor bought, in quote units.';
COMMENT ON COLUMN tick_imbalance_bars.buy_ticks IS 'Number of trades whose aggressor bought.';
COMMENT ON COLUMN tick_imbalance_bars.sell_ticks IS 'Number of trades whose aggressor sold.';
COMMENT ON COLUMN tick_imbalance_bars.total_ticks IS 'Number of trades.';
COMMENT ON COLUMN tick_imbalance_bars.first_trade_id IS 'The venue''s id of the first trade.';
COMMENT ON COLUMN tick_imbalance_bars.last_trade_id IS 'The venue''s id of the last trade.';
COMMENT ON COLUMN tick_imbalance_bars.complete IS 'Whether the ids prove that no trade is missing.';
COMMENT ON COLUMN tick_imbalance_bars.revision IS '2 * total_ticks + complete; a higher one replaces a lower one.';
COMMENT ON COLUMN tick_imbalance_bars.theta IS 'Imbalance it closed with: buy_ticks - sell_ticks.';
COMMENT ON COLUMN tick_imbalance_bars.threshold IS 'What it closed on: the bound of |theta|, or the size of a tick, volume or dollar bar.';
COMMENT ON COLUMN tick_imbalance_bars.expected_size IS 'Number of trades that was expected, in trades; null for bars that expect nothing.';
COMMENT ON COLUMN tick_imbalance_bars.expected_imbalance IS 'Imbalance a trade that was expected, from -1 to 1; null for bars that expect nothing.';
COMMENT ON TABLE raven_positions IS 'How far each writer has stored each upstream; written together with its rows.';
COMMENT ON COLUMN raven_positions.writer IS 'Who wrote: an id kept in the data folder of the service.';
COMMENT ON COLUMN raven_positions.table_name IS 'Which table was written.';
COMMENT ON COLUMN raven_positions.upstream IS 'Which service the rows came from.';
COMMENT ON COLUMN raven_positions.journal_id IS 'The journal of the upstream that sequence counts in.';
COMMENT ON COLUMN raven_positions.sequence IS 'Number of the last batch of it that is stored.';
COMMENT ON COLUMN raven_positions.updated_at IS 'When it was stored, UTC.';
COMMENT ON TABLE raven_schema IS 'The version of these tables; one row.';
COMMENT ON COLUMN raven_schema.version IS 'A number that goes up with every change of the tables.';
COMMENT ON COLUMN raven_schema.updated_at IS 'When the tables became of that version, UTC.';

INSERT INTO raven_schema (version) VALUES (1)
ON CONFLICT ((true)) DO UPDATE SET version = excluded.version, updated_at = excluded.updated_at
WHERE raven_schema.version < excluded.version;

COMMIT;
