-- Wallets: what people call an account of the ledger. The money is there, the names are here.

create table wallet (
    -- The account of the ledger.
    id bigint not null,
    created_at timestamptz not null default now(),
    closed_at timestamptz,
    currency text not null,
    owner text not null,
    label text,
    -- The very text that was given.
    metadata json,
    constraint wallet_pkey primary key (id),
    constraint wallet_owner_length check (char_length(owner) between 1 and 200),
    constraint wallet_label_length check (char_length(label) between 1 and 200)
);

-- Lists are by owner, in the order of their ids.
create index wallet_owner on wallet (owner, id);
