-- The idempotency key of a batch covers the whole request: its mode, and every transfer in its order. The first transfer
-- of a request that is posted claims the key for the request's content, in the transaction that moves the money. A request
-- of which nothing was posted claims nothing.

create table batch_request (
    key_hash uuid constraint batch_request_pkey primary key,
    content_hash uuid not null
);
