-- Leaderboards: boards, their seasons, and entries whose ranks are counted, not stored.
--
-- The order of a season is one column: `place`, 24 bytes that sort by score, subscore, and who reached them first.
-- Entries are counted in buckets by ranges of places, on two levels; a rank is the sum of the buckets before an entry
-- plus its rank in its bucket. Counts change in the transaction of the entry, under the lock of its board, so they
-- are exact in every snapshot.

create table leaderboard (
    id bigint generated always as identity,
    name text not null,
    created_at timestamptz not null default now(),
    -- Its name is free again, its seasons are removed by a job.
    deleted_at timestamptz,
    ascending boolean not null,
    operator text not null,
    -- The seasons: a cron expression in a time zone, and the end of the last one.
    reset text,
    time_zone text not null,
    ends_at timestamptz,
    -- Prizes of the seasons to come: a list of rank, currency and minor units.
    prizes json not null default '[]',
    constraint leaderboard_pkey primary key (id),
    constraint leaderboard_name_format check (name ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$'),
    constraint leaderboard_operator check (operator in ('best', 'set', 'incr', 'decr'))
);

create unique index leaderboard_name on leaderboard (name) where deleted_at is null;
create index leaderboard_deleted on leaderboard (id) where deleted_at is not null;

create table leaderboard_season (
    id bigint generated always as identity,
    board bigint not null,
    number int not null,
    starts_at timestamptz not null,
    -- When it is to end.
    ends_at timestamptz,
    -- When it was ended: from then on nothing in it changes.
    ended_at timestamptz,
    -- Fixed when it starts.
    prizes json not null,
    constraint leaderboard_season_pkey primary key (id),
    constraint leaderboard_season_board_fkey foreign key (board) references leaderboard (id),
    constraint leaderboard_season_number unique (board, number),
    constraint leaderboard_season_grows check (starts_at < ends_at)
);

-- A board has one season at a time.
create unique index leaderboard_season_open on leaderboard_season (board) where ended_at is null;
create index leaderboard_season_due on leaderboard_season (ends_at) where ended_at is null and ends_at is not null;

-- No foreign key to the season: a season is removed in steps, and each submission would pay for the check.
create table leaderboard_entry (
    season bigint not null,
    score bigint not null,
    subscore bigint not null,
    submissions bigint not null default 1,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    place bytea not null,
    owner text not null,
    -- The very text that was given.
    metadata json,
    constraint leaderboard_entry_pkey primary key (season, owner),
    constraint leaderboard_entry_place unique (season, place),
    constraint leaderboard_entry_score check (abs(score) <= 9007199254740991 and abs(subscore) <= 9007199254740991)
) with (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_cost_delay = 0);

-- Counts the entries from one place to the next of its level. The first of each level begins before every place.
create table leaderboard_bucket (
    season bigint not null,
    entries int not null,
    level smallint not null,
    place bytea not null,
    constraint leaderboard_bucket_pkey primary key (season, level, place),
    constraint leaderboard_bucket_level check (level in (1, 2)),
    constraint leaderboard_bucket_not_negative check (0 <= entries)
) with (
    -- A count changes in place, on the same page.
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0
);

-- Who reached a score first: drawn under the lock of the board.
create sequence leaderboard_reached as bigint;

-- What was answered to an idempotency key.
create table leaderboard_key (
    key_hash uuid not null,
    content_hash uuid not null,
    at timestamptz not null default now(),
    board bigint not null,
    answer json not null,
    constraint leaderboard_key_pkey primary key (key_hash)
);

-- The oldest are removed.
create index leaderboard_key_at on leaderboard_key (at);

-- The prizes of seasons that have ended.
create table leaderboard_prize (
    season bigint not null,
    amount bigint not null,
    rank int not null,
    owner text not null,
    currency text not null,
    state text not null default 'due',
    -- Why it is unpaid.
    reason text,
    -- The transfer that paid it.
    transfer bigint,
    settled_at timestamptz,
    constraint leaderboard_prize_pkey primary key (season, rank, currency),
    constraint leaderboard_prize_season_fkey foreign key (season) references leaderboard_season (id),
    constraint leaderboard_prize_amount check (0 < amount),
    constraint leaderboard_prize_rank check (0 < rank),
    constraint leaderboard_prize_state check (
        case state
            when 'due' then transfer is null and reason is null and settled_at is null
            when 'paid' then transfer is not null and reason is null and settled_at is not null
            when 'unpaid' then transfer is null and reason is not null and settled_at is not null
            else false
        end
    )
);

create index leaderboard_prize_open on leaderboard_prize (season, rank) where state <> 'paid';

-- The clock of seasons, one for all processes.
create function leaderboard_now() returns timestamptz
language sql volatile as $$ select clock_timestamp() $$;

-- Sorts as bytes: the best score first, then the best subscore, then who reached them first.
-- Scores are below 2^53, so that a shift by 2^62 makes every number positive.
create function leaderboard_place(ascending boolean, score bigint, subscore bigint, reached bigint) returns bytea
language sql immutable as $$
    select case
        when ascending then int8send((1::bigint << 62) + score) || int8send((1::bigint << 62) + subscore)
        else int8send((1::bigint << 62) - score) || int8send((1::bigint << 62) - subscore)
    end || int8send(reached)
$$;

-- The functions from here on scan indexes in their order, whatever the statistics of a young season say: those that are
-- called from outside set that, and the ones inside follow.

-- The entries before a place.
create function leaderboard_before(p_season bigint, p_place bytea) returns bigint
language plpgsql stable as $$
declare
    v_group bytea;
    v_bucket bytea;
    v_in_groups bigint;
    v_in_buckets bigint;
    v_in_bucket bigint;
begin
    select place into v_group from leaderboard_bucket
    where season = p_season and level = 2 and place <= p_place
    order by season desc, level desc, place desc limit 1;
    if not found then
        return 0;
    end if;
    select place into v_bucket from leaderboard_bucket
    where season = p_season and level = 1 and place <= p_place
    order by season desc, level desc, place desc limit 1;

    select coalesce(sum(entries), 0) into v_in_groups from leaderboard_bucket
    where season = p_season and level = 2 and place < v_group;
    select coalesce(sum(entries), 0) into v_in_buckets from leaderboard_bucket
    where season = p_season and level = 1 and place >= v_group and place < v_bucket;
    select count(*) into v_in_bucket from leaderboard_entry
    where season = p_season and place >= v_bucket and place < p_place;
    return v_in_groups + v_in_buckets + v_in_bucket;
end
$$;

-- Counts an entry that was inserted at this place. A bucket that grows too large is split in the middle.
create function leaderboard_count_in(p_season bigint, p_place bytea) returns void
language plpgsql as $$
declare
    c_bucket_max constant int := 128;
    c_group_max constant int := 8192;
    v_bucket leaderboard_bucket;
    v_group leaderboard_bucket;
    v_middle bytea;
    v_below int;
begin
    select * into v_group from leaderboard_bucket
    where season = p_season and level = 2 and place <= p_place
    order by season desc, level desc, place desc limit 1;
    if not found then
        insert into leaderboard_bucket (season, level, place, entries) values (p_season, 1, '', 1), (p_season, 2, '', 1);
        return;
    end if;
    select * into v_bucket from leaderboard_bucket
    where season = p_season and level = 1 and place <= p_place
    order by season desc, level desc, place desc limit 1;

    if v_bucket.entries < c_bucket_max then
        update leaderboard_bucket set entries = entries + 1
        where season = p_season and level = 1 and place = v_bucket.place;
    else
        v_below := c_bucket_max / 2;
        select place into strict v_middle from leaderboard_entry
        where season = p_season and place >= v_bucket.place
        order by season, place offset v_below limit 1;
        insert into leaderboard_bucket (season, level, place, entries)
        values (p_season, 1, v_middle, v_bucket.entries + 1 - v_below);
        update leaderboard_bucket set entries = v_below
        where season = p_season and level = 1 and place = v_bucket.place;
    end if;

    if v_group.entries < c_group_max then
        update leaderboard_bucket set entries = entries + 1
        where season = p_season and level = 2 and place = v_group.place;
    else
        -- At a bound of the level below.
        select place, below into strict v_middle, v_below
        from (
            select place, sum(entries) over (order by place) - entries as below
            from leaderboard_bucket
            where season = p_season and level = 1 and place >= v_group.place
        ) running
        where below >= c_group_max / 2
        order by place limit 1;
        insert into leaderboard_bucket (season, level, place, entries)
        values (p_season, 2, v_middle, v_group.entries + 1 - v_below);
        update leaderboard_bucket set entries = v_below
        where season = p_season and level = 2 and place = v_group.place;
    end if;
end
$$;

-- Counts an entry that left this place. A bucket that became small joins the one before it, if there is room.
create function leaderboard_count_out(p_season bigint, p_place bytea) returns void
language plpgsql as $$
declare
    c_bucket_max constant int := 128;
    c_group_max constant int := 8192;
    v_bucket leaderboard_bucket;
    v_group leaderboard_bucket;
    v_before leaderboard_bucket;
begin
    update leaderboard_bucket b set entries = b.entries - 1
    from (
        select place from leaderboard_bucket
        where season = p_season and level = 2 and place <= p_place
        order by season desc, level desc, place desc limit 1
    ) home
    where b.season = p_season and b.level = 2 and b.place = home.place
    returning b.* into strict v_group;
    update leaderboard_bucket b set entries = b.entries - 1
    from (
        select place from leaderboard_bucket
        where season = p_season and level = 1 and place <= p_place
        order by season desc, level desc, place desc limit 1
    ) home
    where b.season = p_season and b.level = 1 and b.place = home.place
    returning b.* into strict v_bucket;

    -- A bound of a group stays a bound of the level below.
    if v_bucket.entries < c_bucket_max / 4 and v_bucket.place <> v_group.place then
        select * into strict v_before from leaderboard_bucket
        where season = p_season and level = 1 and place < v_bucket.place
        order by season desc, level desc, place desc limit 1;
        if v_before.entries + v_bucket.entries <= c_bucket_max * 3 / 4 then
            delete from leaderboard_bucket where season = p_season and level = 1 and place = v_bucket.place;
            update leaderboard_bucket set entries = entries + v_bucket.entries
            where season = p_season and level = 1 and place = v_before.place;
        end if;
    end if;
    if v_group.entries < c_group_max / 4 and v_group.place <> '' then
        select * into strict v_before from leaderboard_bucket
        where season = p_season and level = 2 and place < v_group.place
        order by season desc, level desc, place desc limit 1;
        if v_before.entries + v_group.entries <= c_group_max * 3 / 4 then
            delete from leaderboard_bucket where season = p_season and level = 2 and place = v_group.place;
            update leaderboard_bucket set entries = entries + v_group.entries
            where season = p_season and level = 2 and place = v_before.place;
        end if;
    end if;
end
$$;

-- A new score of an owner, in a season whose board is locked: true unless the score would overflow.
create function leaderboard_apply(
    p_season bigint, p_ascending boolean, p_operator text,
    p_owner text, p_score bigint, p_subscore bigint, p_metadata text
) returns boolean
language plpgsql as $$
declare
    c_score_max constant bigint := 9007199254740991;
    v_old leaderboard_entry;
    v_is_new boolean;
    v_score bigint := p_score;
    v_subscore bigint := p_subscore;
    v_place bytea;
begin
    select * into v_old from leaderboard_entry where season = p_season and owner = p_owner;
    v_is_new := not found;
    if p_operator = 'decr' then
        v_score := -v_score;
        v_subscore := -v_subscore;
    end if;
    if p_operator in ('incr', 'decr') and not v_is_new then
        v_score := v_old.score + v_score;
        v_subscore := v_old.subscore + v_subscore;
    end if;
    if abs(v_score) > c_score_max or abs(v_subscore) > c_score_max then
        return false;
    end if;
    if p_operator = 'best' and not v_is_new and (
        p_ascending and (v_score, v_subscore) >= (v_old.score, v_old.subscore)
        or not p_ascending and (v_score, v_subscore) <= (v_old.score, v_old.subscore)
    ) then
        update leaderboard_entry set submissions = submissions + 1 where season = p_season and owner = p_owner;
        return true;
    end if;
    if not v_is_new and v_score = v_old.score and v_subscore = v_old.subscore then
        -- Whoever repeats a score keeps the moment it was reached.
        update leaderboard_entry
        set submissions = submissions + 1, updated_at = leaderboard_now(), metadata = coalesce(p_metadata::json, metadata)
        where season = p_season and owner = p_owner;
        return true;
    end if;

    v_place := leaderboard_place(p_ascending, v_score, v_subscore, nextval('leaderboard_reached'));
    if v_is_new then
        insert into leaderboard_entry (season, owner, score, subscore, place, created_at, updated_at, metadata)
        values (p_season, p_owner, v_score, v_subscore, v_place, leaderboard_now(), leaderboard_now(), p_metadata::json);
    else
        perform leaderboard_count_out(p_season, v_old.place);
        update leaderboard_entry
        set score = v_score, subscore = v_subscore, place = v_place, submissions = submissions + 1,
            updated_at = leaderboard_now(), metadata = coalesce(p_metadata::json, metadata)
        where season = p_season and owner = p_owner;
    end if;
    perform leaderboard_count_in(p_season, v_place);
    return true;
end
$$;

-- The submissions of a batch, one after another: the outcome of each, and its entry as it was right after it.
-- One row without a number tells why none of them was taken: no board, no season, or a season that has to be ended first.
create function leaderboard_submit(
    p_board bigint, p_owner text[], p_score bigint[], p_subscore bigint[], p_metadata text[], p_key uuid[], p_content uuid[]
) returns table (n int, outcome text, answer json)
language plpgsql
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
set jit = off set max_parallel_workers_per_gather = 0 set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    c_announced_max constant bigint := 100;
    v_board leaderboard;
    v_season leaderboard_season;
    v_content uuid;
    v_answer json;
    v_rank bigint;
    v_place bytea;
    v_was bytea;
    v_announced boolean := false;
begin
    -- Everything that changes a board takes this lock first, and no other one of a board.
    select * into v_board from leaderboard b where b.id = p_board and b.deleted_at is null for no key update;
    if not found then
        return query select null::int, 'no_board', null::json;
        return;
    end if;
    select * into v_season from leaderboard_season s where s.board = p_board and s.ended_at is null;
    if not found then
        return query select null::int, 'season_over', null::json;
        return;
    end if;
    if v_season.ends_at <= leaderboard_now() then
        return query select null::int, 'season_due', null::json;
        return;
    end if;

    for i in 1..cardinality(p_owner) loop
        n := i - 1;
        answer := null;
        if p_key[i] is not null then
            select k.content_hash, k.answer into v_content, answer from leaderboard_key k where k.key_hash = p_key[i];
            if found then
                if v_content <> p_content[i] then
                    outcome := 'key_reused';
                    answer := null;
                else
                    outcome := 'replayed';
                end if;
                return next;
                continue;
            end if;
        end if;
        select e.place into v_was from leaderboard_entry e where e.season = v_season.id and e.owner = p_owner[i];
        if not leaderboard_apply(
            v_season.id, v_board.ascending, v_board.operator, p_owner[i], p_score[i], p_subscore[i], p_metadata[i]) then
            outcome := 'overflow';
            return next;
            continue;
        end if;
        outcome := 'taken';
        select e.place into v_place from leaderboard_entry e where e.season = v_season.id and e.owner = p_owner[i];
        v_rank := leaderboard_before(v_season.id, v_place) + 1;
        select json_build_object(
            'season', v_season.number, 'owner', e.owner, 'rank', v_rank, 'score', e.score, 'subscore', e.subscore,
            'metadata', e.metadata, 'submissions', e.submissions, 'created_at', e.created_at, 'updated_at', e.updated_at)
        into answer
        from leaderboard_entry e where e.season = v_season.id and e.owner = p_owner[i];
        if p_key[i] is not null then
            insert into leaderboard_key (key_hash, content_hash, board, answer)
            values (p_key[i], p_content[i], p_board, answer);
        end if;
        if v_place is distinct from v_was and v_rank <= c_announced_max then
            insert into ledger.event (book, topic, body)
            select 1, topic, json_build_object(
                'board', v_board.name, 'season', v_season.number, 'owner', p_owner[i], 'rank', v_rank,
                'score', answer -> 'score', 'subscore', answer -> 'subscore')
            from unnest(array['leaderboard:' || v_board.name, 'leaderboard-changes']) topic
            -- Every board's leader, and the first hundred of one board.
            where topic <> 'leaderboard-changes' or v_rank = 1;
            v_announced := true;
        end if;
        return next;
    end loop;
    if v_announced then
        perform pg_notify('event', '1');
    end if;
end
$$;

-- A page of a season behind a place, in either direction, in the order of the ranks.
create function leaderboard_page(p_season bigint, p_place bytea, p_backward boolean, p_limit bigint)
returns table (
    rank bigint, place bytea, owner text, score bigint, subscore bigint, metadata text, submissions bigint,
    created_at timestamptz, updated_at timestamptz)
language plpgsql stable
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
set jit = off set max_parallel_workers_per_gather = 0 set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_first bytea;
    v_before bigint;
begin
    if p_backward then
        select p.places[cardinality(p.places)] into v_first from (
            select array_agg(b.place) as places from (
                select place from leaderboard_entry
                where season = p_season and place < p_place
                order by season desc, place desc limit p_limit
            ) b
        ) p;
    else
        select place into v_first from leaderboard_entry
        where season = p_season and place > p_place
        order by season, place limit 1;
    end if;
    if v_first is null then
        return;
    end if;
    -- Once, not for each row.
    v_before := leaderboard_before(p_season, v_first);
    return query
    select
        v_before + row_number() over (order by e.place), e.place, e.owner, e.score, e.subscore,
        e.metadata::text, e.submissions, e.created_at, e.updated_at
    from (
        select * from leaderboard_entry
        where season = p_season and place >= v_first and (not p_backward or place < p_place)
        order by season, place limit p_limit
    ) e;
end
$$;

-- The entry of an owner and its neighbors, in the order of the ranks; nothing if there is no such entry.
create function leaderboard_around(p_season bigint, p_owner text, p_around bigint)
returns table (
    rank bigint, place bytea, owner text, score bigint, subscore bigint, metadata text, submissions bigint,
    created_at timestamptz, updated_at timestamptz)
language plpgsql stable
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
set jit = off set max_parallel_workers_per_gather = 0 set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    v_place bytea;
    v_neighbors bigint;
    v_first bytea;
    v_before bigint;
begin
    select place into v_place from leaderboard_entry where season = p_season and owner = p_owner;
    if not found then
        return;
    end if;
    select p.places[cardinality(p.places)], coalesce(cardinality(p.places), 0) into v_first, v_neighbors from (
        select array_agg(b.place) as places from (
            select place from leaderboard_entry
            where season = p_season and place < v_place
            order by season desc, place desc limit p_around
        ) b
    ) p;
    v_first := coalesce(v_first, v_place);
    v_before := leaderboard_before(p_season, v_first);
    return query
    select
        v_before + row_number() over (order by e.place), e.place, e.owner,
        e.score, e.subscore, e.metadata::text, e.submissions, e.created_at, e.updated_at
    from (
        select * from leaderboard_entry
        where season = p_season and place >= v_first
        order by season, place limit v_neighbors + 1 + p_around
    ) e;
end
$$;

-- The accounts that prizes are paid from are system accounts with a floor. Rows that are there already have none of them.
alter table ledger.transfer add constraint transfer_prize_floor check (
    0 <= debit_balance or debit <= -(8::bigint << 32) or -(7::bigint << 32) < debit
) not valid;
