-- Updates of wallets that came with an idempotency key, each with the answer that it was given: a repetition is answered the
-- same, whatever happened to the wallet since. The balance of the answer is the one after the transfer `seq`.

create table wallet_update (
    key_hash uuid constraint wallet_update_pkey primary key,
    content_hash uuid not null,
    wallet bigint not null constraint wallet_update_wallet_fkey references wallet (id),
    seq bigint not null,
    state text not null,
    label text,
    metadata json
);
