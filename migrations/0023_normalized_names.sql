-- Names and e-mail addresses of users who registered before registration normalized them. Sign-in normalizes what it is
-- given, so such a user could not sign in any more. Whose normalized name belongs to somebody else keeps the old one.

do $$
declare
    v_user record;
    v_lower text := case
        when exists (select from pg_collation where collname = 'und-x-icu') then 'select lower($1 collate "und-x-icu")'
        else 'select lower($1)'
    end;
    v_email text;
begin
    for v_user in
        select id, username, email from app_user where username ~ '[^\x01-\x7f]' or email ~ '[^\x01-\x7f]' order by id
    loop
        begin
            update app_user set username = normalize(username, nfkc)
            where id = v_user.id and username is not nfkc normalized;
        exception
            when unique_violation then raise notice 'user % keeps the name as it is', v_user.id;
        end;
        begin
            if v_user.email ~ '[^\x01-\x7f]' then
                execute v_lower into v_email using normalize(v_user.email, nfkc);
                update app_user set email = v_email where id = v_user.id and email <> v_email;
            end if;
        exception
            when unique_violation then raise notice 'user % keeps the e-mail address as it is', v_user.id;
        end;
    end loop;
end
$$;
