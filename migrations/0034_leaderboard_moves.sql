-- An entry that stays in its bucket changes no counts: a balance that grows by little, most often.

create or replace function leaderboard_apply(
    p_season bigint, p_ascending boolean, p_operator text,
    p_owner text, p_score bigint, p_subscore bigint, p_metadata text
) returns boolean
language plpgsql as $$
declare
    c_score_max constant bigint := 9007199254740991;
    v_old leaderboard_entry;
    v_is_new boolean;
    v_leaves boolean;
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
        perform leaderboard_count_in(p_season, v_place);
        return true;
    end if;
    -- Counts change only if the entry moves to another bucket; a bound of a group is one of the level below too.
    v_leaves := exists (
        select from leaderboard_bucket
        where season = p_season and level = 1 and place > least(v_old.place, v_place) and place <= greatest(v_old.place, v_place)
    );
    if v_leaves then
        perform leaderboard_count_out(p_season, v_old.place);
    end if;
    update leaderboard_entry
    set score = v_score, subscore = v_subscore, place = v_place, submissions = submissions + 1,
        updated_at = leaderboard_now(), metadata = coalesce(p_metadata::json, metadata)
    where season = p_season and owner = p_owner;
    if v_leaves then
        perform leaderboard_count_in(p_season, v_place);
    end if;
    return true;
end
$$;
