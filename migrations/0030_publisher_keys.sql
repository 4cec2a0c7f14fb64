-- API keys of one publisher: their scopes hold only for its games.

alter table api_key
    add column publisher bigint constraint api_key_publisher_fkey references publisher (id);
