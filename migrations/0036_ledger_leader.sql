-- The process that leads a book. The other processes send it their postings, because processes that race for the head of the
-- book undo each other's work. Leadership is never an authority: a process that wrongly believes that it leads loses races.
create table ledger.leader (
    book int not null constraint leader_pkey primary key,
    -- Internal address of the process: host and port.
    address text not null,
    -- Secret that the other processes send with their postings; each leader draws another.
    key uuid not null,
    since timestamptz not null default clock_timestamp()
);

do $$
begin
    if exists (select from pg_roles where rolname = 'revwallet_app') then
        grant select, insert, update on ledger.leader to revwallet_app;
    end if;
end
$$;
