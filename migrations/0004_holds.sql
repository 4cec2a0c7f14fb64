-- Holds and refunds: how much of a transfer is done. The money itself is in the ledger.
-- Both are changed only together with their money, on the condition that they are as they were when that was decided.

create table hold (
    -- The transfer that set the money aside.
    id bigint not null,
    wallet bigint not null,
    amount bigint not null,
    captured bigint not null default 0,
    released bigint not null default 0,
    expires_at timestamptz not null,
    -- Counts the changes.
    version int not null default 0,
    state text not null default 'open',
    constraint hold_pkey primary key (id),
    constraint hold_wallet_fkey foreign key (wallet) references wallet (id),
    constraint hold_amounts check (0 < amount and 0 <= captured and 0 <= released and captured + released <= amount),
    constraint hold_state check (
        case state
            when 'open' then captured + released < amount
            when 'captured' then captured + released = amount and 0 < captured
            when 'voided' then captured + released = amount
            when 'expired' then captured + released = amount and 0 < released
            else false
        end
    )
);

-- The holds of a wallet, newest first.
create index hold_wallet on hold (wallet, id desc);

-- Those that will expire.
create index hold_expiry on hold (expires_at) where state = 'open';

create table refund (
    -- The transfer whose money goes back.
    transfer bigint not null,
    amount bigint not null,
    refunded bigint not null,
    constraint refund_pkey primary key (transfer),
    constraint refund_never_more_than_there_was check (0 < refunded and refunded <= amount)
);

do $$
begin
    if exists (select from pg_roles where rolname = 'revwallet_app') then
        grant select, insert, update on hold, refund to revwallet_app;
        revoke delete, truncate on hold, refund from revwallet_app;
    end if;
end
$$;
