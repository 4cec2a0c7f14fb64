-- What may be looked at by whoever watches: what was moved, when, and by which request. Not what people wrote on it.
-- A role for it reads these functions and nothing else; give it a password to let it sign in.

create schema observer;

create function observer.kind(kind smallint) returns text
language sql immutable as $$
    select (array['open', 'close', 'freeze', 'unfreeze', null, null, null, null, null,
        'deposit', 'withdrawal', 'transfer', 'fee', 'hold', 'capture', 'void', 'expiry', 'refund', 'purchase',
        'exchange', 'payout', 'adjustment', 'probe'])[kind]
$$;

-- The wallet behind an account: its own, or that of money that is held for it; none of the system's.
create function observer.wallet(account bigint) returns bigint
language sql immutable as $$
    select case
        when 0 < account then account
        when account < -(1::bigint << 40) then -(1::bigint << 40) - account
    end
$$;

create view observer.transfer as
select
    t.seq as transfer,
    t.at,
    observer.kind(t.kind) as kind,
    observer.wallet(t.debit) as from_wallet,
    observer.wallet(t.credit) as to_wallet,
    t.amount as minor_units,
    a.currency,
    t.debit_balance as from_balance,
    t.credit_balance as to_balance,
    t.linked,
    replace(t.trace_id::text, '-', '') as trace_id,
    t.debit,
    t.credit,
    t.leg,
    t.legs
from ledger.transfer t
left join ledger.account a on a.book = t.book and a.account = t.debit
where t.book = 1;

-- The last hundred of a wallet, newest first. The argument is a text, as a person types it.
create function observer.of_wallet(wallet text) returns setof observer.transfer
language sql stable security definer set search_path = '' as $$
    with asked as (
        select unnest(array[id, -(1::bigint << 40) - id]) as account
        from (select case when wallet ~ '^[0-9]{1,15}$' then wallet::bigint end as id) given
    ), found as (
        select f.* from asked cross join lateral (
            (select * from observer.transfer where debit = account order by transfer desc limit 100)
            union
            (select * from observer.transfer where credit = account order by transfer desc limit 100)
        ) f
    )
    select distinct * from found order by transfer desc limit 100
$$;

-- One transfer with its other legs, such as a fee.
create function observer.of_transfer(id text) returns setof observer.transfer
language sql stable security definer set search_path = '' as $$
    select legs.*
    from observer.transfer first
    join observer.transfer legs on legs.transfer between first.transfer - first.leg and first.transfer - first.leg + first.legs - 1
    where first.transfer = case when id ~ '^[0-9]{1,18}$' then id::bigint end
    order by legs.transfer
$$;

-- What the request with this trace moved, within a span of time.
create function observer.of_trace(trace text, since timestamptz, until timestamptz) returns setof observer.transfer
language sql stable security definer set search_path = '' as $$
    select t.*
    from observer.transfer t
    where t.transfer > coalesce((select max(seq) from ledger.seal where book = 1 and at < since), 0)
        and t.transfer <= coalesce((select max(seq) from ledger.seal where book = 1 and at <= until), 0)
        and t.trace_id = lower(trace)
    order by t.transfer
    limit 1000
$$;

revoke all on all functions in schema observer from public;

do $$
declare
    v_try int;
begin
    for v_try in 1..20 loop
        begin
            if not exists (select from pg_roles where rolname = 'revwallet_observer') then
                create role revwallet_observer nologin;
            end if;
            exit;
        exception
            when duplicate_object or unique_violation or internal_error then
                perform pg_sleep(0.05);
            when insufficient_privilege then
                raise notice 'no role revwallet_observer: this user may not create roles';
                return;
        end;
    end loop;
    -- A dashboard that asks for too much is stopped, not the database.
    begin
        alter role revwallet_observer set statement_timeout = '10s';
        alter role revwallet_observer set default_transaction_read_only = on;
    exception
        when insufficient_privilege then
            -- Another installation of this cluster, or an administrator, made the role: it will do if it has the limits.
            if not exists (
                select from pg_roles
                where rolname = 'revwallet_observer'
                    and rolconfig @> array['statement_timeout=10s', 'default_transaction_read_only=on']
            ) then
                raise exception using
                    errcode = 'insufficient_privilege',
                    message = format(
                        'the role revwallet_observer lacks its limits and %I may not set them; as an administrator, run `'
                        'alter role revwallet_observer set statement_timeout = ''10s''; '
                        'alter role revwallet_observer set default_transaction_read_only = on`', current_user);
            end if;
    end;
    grant usage on schema observer to revwallet_observer;
    grant execute on function observer.of_wallet, observer.of_transfer, observer.of_trace to revwallet_observer;
    begin
        -- For the exporter of the server's own figures.
        grant pg_monitor to revwallet_observer;
    exception
        when insufficient_privilege then
            raise notice 'revwallet_observer cannot be given pg_monitor: the server''s own figures stay unseen';
    end;
end
$$;
