//! Authorization: every kind of caller calls the operations directly, without HTTP, and, in `matrix`, every route.

mod matrix;
mod resources;

use std::fmt::Write;
use std::pin::Pin;
use std::time::Duration;

use revwallet::app::App;
use revwallet::auth::{Access, ApiKeyGrant, Caller, Policy, Scope, SignedIn};
use revwallet::error::{Error, Result};
use revwallet::idempotency_key::IdempotencyKey;
use revwallet::ids::{ApiKeyId, PlayerId, UserId, WalletId, WebhookId};
use revwallet::ledger::money::Minor;
use revwallet::secret::Secret;
use revwallet::users::ProfileChanges;
use revwallet::wallet::RequestMeta;
use revwallet::wallet::history::HistoryQuery;
use revwallet::wallet::hold::{CaptureRest, Transition};
use revwallet::wallet::read::WalletFilter;
use revwallet::wallet::transfer::{Note, TransferRequest};
use revwallet::wallet::update::WalletChanges;
use uuid::Uuid;

use crate::harness::run;
use crate::harness::users::User;

use self::resources::{Resources, resources};

/// Permission that an operation requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Permission {
    /// To see a wallet.
    Read,
    /// To see at least some wallets.
    ReadAny,
    /// To take money out of a wallet, or to change it.
    Spend,
    /// To create money in a wallet.
    Fund,
    /// To lift the freeze of a wallet.
    Unfreeze,
    /// To see the balance of a registered player.
    ReadPlayer,
    /// To take money from a registered player.
    SpendPlayer,
    /// To create money for a registered player.
    FundPlayer,
    /// To see the balance of a guest.
    ReadGuest,
    /// To take money from a guest.
    SpendGuest,
    /// To create money for a guest.
    FundGuest,
    /// To end a hold that another caller placed.
    EndHold,
    /// To post the canary's transfer.
    Canary,
    /// To see a user.
    ReadUser,
    /// To see a user from another service.
    ReadAnyUser,
    /// To change a user.
    ChangeUser,
    /// To do what only admins do.
    Admin,
}

/// A caller with the properties that decide its permissions.
struct TestCaller {
    name: &'static str,
    caller: Caller,
    is_owner: bool,
    is_user: bool,
    scopes: Vec<Scope>,
}

impl TestCaller {
    /// Returns whether the caller has a permission on resources that the owner, or no user, owns.
    fn may(&self, permission: Permission, is_owned: bool, policy: Policy) -> bool {
        let has = |scope| self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin);
        let is_open = policy.access == Access::Open;
        let is_anonymous = !self.is_user && self.scopes.is_empty();
        let is_own = if is_owned { self.is_owner } else { is_open };
        match permission {
            Permission::Read => is_own || has(Scope::WalletRead),
            Permission::ReadAny => is_open || self.is_user || has(Scope::WalletRead),
            Permission::Spend => is_own || has(Scope::WalletWrite),
            Permission::Fund => (is_own && policy.self_service_funding) || has(Scope::WalletWrite),
            Permission::Unfreeze => (is_own && !is_owned) || has(Scope::WalletWrite),
            Permission::ReadPlayer => self.is_owner || has(Scope::WalletRead),
            Permission::SpendPlayer => self.is_owner || has(Scope::WalletWrite),
            Permission::FundPlayer => {
                (self.is_owner && policy.self_service_funding) || has(Scope::WalletWrite)
            }
            // In closed access there are no guests to find.
            Permission::ReadGuest => is_open,
            Permission::SpendGuest => is_open && (is_anonymous || has(Scope::WalletWrite)),
            Permission::FundGuest => {
                is_open
                    && ((is_anonymous && policy.self_service_funding) || has(Scope::WalletWrite))
            }
            Permission::EndHold => has(Scope::WalletWrite),
            Permission::Canary => !self.is_user,
            Permission::ReadUser => self.is_owner || has(Scope::UsersRead),
            Permission::ReadAnyUser => has(Scope::UsersRead),
            Permission::ChangeUser => self.is_owner || has(Scope::Admin),
            Permission::Admin => has(Scope::Admin),
        }
    }
}

fn callers(owner: &SignedIn, other: &SignedIn, policy: Policy) -> Vec<TestCaller> {
    let as_user = |name, user: &SignedIn, is_admin: bool| TestCaller {
        name,
        caller: Caller::user(SignedIn { is_admin, ..user.clone() }, policy),
        is_owner: user.id == owner.id,
        is_user: true,
        scopes: if is_admin { vec![Scope::Admin] } else { Vec::new() },
    };
    let mut callers = vec![
        TestCaller {
            name: "anonymous",
            caller: Caller::anonymous(policy),
            is_owner: false,
            is_user: false,
            scopes: Vec::new(),
        },
        as_user("the owner", owner, false),
        as_user("another user", other, false),
        as_user("an admin", other, true),
    ];
    for scope in Scope::ALL {
        callers.push(TestCaller {
            name: scope.name(),
            caller: Caller::api_key(
                ApiKeyId(77),
                ApiKeyGrant { scopes: vec![scope], user: None },
                policy,
            ),
            is_owner: false,
            is_user: false,
            scopes: vec![scope],
        });
    }
    callers
}

/// A call of an operation.
struct Call<'a> {
    app: &'a App,
    caller: &'a Caller,
    key: &'a IdempotencyKey,
    resources: Resources,
}

impl Call<'_> {
    /// The player id of the owner.
    fn user(&self) -> PlayerId {
        self.resources.user.into()
    }

    /// The player id of another user.
    fn other(&self) -> PlayerId {
        self.resources.other.into()
    }

    fn meta(&self) -> RequestMeta<'_> {
        RequestMeta { caller: self.caller, key: self.key, trace: Uuid::nil() }
    }
}

type Outcome<'a> = Pin<Box<dyn Future<Output = Result<()>> + 'a>>;
type Operation = for<'a> fn(&'a Call<'a>) -> Outcome<'a>;

/// Calls an operation and drops its result.
macro_rules! operation {
    (|$call:ident| $operation:expr) => {{
        fn operation<'a>($call: &'a Call<'a>) -> Outcome<'a> {
            Box::pin(async move { $operation.await.map(|_| ()) })
        }
        operation as Operation
    }};
}

/// Returns every operation that takes a caller, with the permission that it requires.
#[expect(clippy::too_many_lines, reason = "a table of all operations")]
fn operations() -> Vec<(&'static str, Permission, Operation)> {
    use Permission::{
        Admin, Canary, ChangeUser, EndHold, Fund, FundGuest, FundPlayer, Read, ReadAny,
        ReadAnyUser, ReadGuest, ReadPlayer, ReadUser, Spend, SpendGuest, SpendPlayer, Unfreeze,
    };
    fn transfer<'a>(from: WalletId, to: WalletId) -> TransferRequest<'a> {
        TransferRequest { from, to, amount: "0.01", fee: None, note: Note::default() }
    }
    const HISTORY: HistoryQuery = HistoryQuery { from: None, to: None, before_seq: None, limit: 1 };
    const FILTER: WalletFilter<'_> =
        WalletFilter { owner: None, currency: None, include_closed: false, after: 0, limit: 1 };
    vec![
        (
            "balance",
            Read,
            operation!(|c| c.app.wallets.balance(c.caller, c.resources.wallet, None)),
        ),
        ("detail", Read, operation!(|c| c.app.wallets.detail(c.caller, c.resources.wallet))),
        (
            "history",
            Read,
            operation!(|c| c.app.wallets.history(c.caller, c.resources.wallet, HISTORY)),
        ),
        (
            "statement",
            Read,
            operation!(|c| c.app.wallets.statement(c.caller, c.resources.wallet, None, None)),
        ),
        (
            "holds",
            Read,
            operation!(|c| c.app.wallets.list_holds(c.caller, c.resources.wallet, 9, 1)),
        ),
        ("get hold", Read, operation!(|c| c.app.wallets.get_hold(c.caller, c.resources.hold))),
        (
            "get transfer",
            Read,
            operation!(|c| c.app.wallets.get_transfer(c.caller, c.resources.transfer)),
        ),
        ("list", ReadAny, operation!(|c| c.app.wallets.list(c.caller, FILTER))),
        (
            "deposit",
            Fund,
            operation!(|c| c.app.wallets.deposit(
                c.resources.wallet,
                "1",
                Note::default(),
                c.meta()
            )),
        ),
        (
            "withdraw",
            Spend,
            operation!(|c| c.app.wallets.withdraw(
                c.resources.wallet,
                "0.01",
                Note::default(),
                c.meta()
            )),
        ),
        (
            "transfer",
            Spend,
            operation!(|c| c
                .app
                .wallets
                .transfer(transfer(c.resources.wallet, c.resources.empty), c.meta())),
        ),
        (
            "atomic batch",
            Spend,
            operation!(|c| {
                c.app.wallets.transfer_all(
                    vec![Ok(transfer(c.resources.wallet, c.resources.empty))],
                    c.meta(),
                )
            }),
        ),
        (
            "batch",
            Spend,
            operation!(|c| async {
                let requests = vec![Ok(transfer(c.resources.wallet, c.resources.empty))];
                c.app.wallets.transfer_each(requests, c.meta()).await?.remove(0)
            }),
        ),
        (
            "place hold",
            Spend,
            operation!(|c| {
                c.app.wallets.place_hold(
                    c.resources.wallet,
                    "0.01",
                    (Duration::from_mins(1), Note::default()),
                    c.meta(),
                )
            }),
        ),
        (
            "capture",
            EndHold,
            operation!(|c| {
                let rest = CaptureRest::Keep;
                let capture = Transition::Capture { amount: Some("0.01"), to: None, rest };
                c.app.wallets.transition_hold(c.resources.hold, capture, c.meta())
            }),
        ),
        (
            "refund",
            Spend,
            operation!(|c| c.app.wallets.refund(c.resources.transfer, Some("0.01"), c.meta())),
        ),
        (
            "update",
            Spend,
            operation!(|c| async {
                let label = Some(Some("label".to_owned()));
                let changes = WalletChanges { label, ..WalletChanges::default() };
                c.app.wallets.update(c.resources.wallet, &changes, c.meta()).await
            }),
        ),
        (
            "unfreeze",
            Unfreeze,
            operation!(|c| async {
                let changes = WalletChanges { freeze: Some(false), ..WalletChanges::default() };
                c.app.wallets.update(c.resources.frozen, &changes, c.meta()).await
            }),
        ),
        // A wallet with money cannot be closed, so it is open for every caller.
        ("close", Spend, operation!(|c| c.app.wallets.close(c.resources.wallet, c.meta()))),
        ("balance of a player", ReadPlayer, operation!(|c| read_player(c, c.user()))),
        ("withdraw from a player", SpendPlayer, operation!(|c| spend_player(c, c.user()))),
        ("deposit to a player", FundPlayer, operation!(|c| fund_player(c, c.user()))),
        ("balance of a guest", ReadGuest, operation!(|c| read_player(c, guest()))),
        ("withdraw from a guest", SpendGuest, operation!(|c| spend_player(c, guest()))),
        (
            "transfer from a player",
            SpendPlayer,
            operation!(|c| transfer_players(c, c.user(), c.other())),
        ),
        (
            "transfer from a guest",
            SpendGuest,
            operation!(|c| transfer_players(c, guest(), c.user())),
        ),
        ("deposit to a guest", FundGuest, operation!(|c| fund_player(c, guest()))),
        ("canary", Canary, operation!(|c| c.app.wallets.post_canary(c.meta()))),
        ("get user", ReadUser, operation!(|c| c.app.users.get(c.caller, c.resources.user))),
        (
            "get user from a service",
            ReadAnyUser,
            operation!(|c| c.app.users.get_internal(c.caller, c.resources.user)),
        ),
        ("audit log", Admin, operation!(|c| c.app.audit_log.list(c.caller, None, 1, 1))),
        (
            "create key",
            Admin,
            operation!(|c| c.app.api_keys.create(c.caller, None, "x", &[Scope::UsersRead], None)),
        ),
        ("list keys", Admin, operation!(|c| c.app.api_keys.list(c.caller, 0, 1))),
        ("revoke key", Admin, operation!(|c| c.app.api_keys.revoke(c.caller, None, ApiKeyId(404)))),
        ("rotate key", Admin, operation!(|c| c.app.api_keys.rotate(c.caller, None, ApiKeyId(404)))),
        ("change user", ChangeUser, operation!(|c| change_user(c.app, c.caller, c.resources.user))),
        ("create alert", Spend, operation!(|c| create_alert(c.app, c.caller, c.resources.wallet))),
        (
            "list alerts",
            Read,
            operation!(|c| c.app.webhooks.list_alerts(c.resources.wallet, c.caller)),
        ),
        ("list webhooks", ReadAny, operation!(|c| c.app.webhooks.list(c.caller))),
        (
            "rotate webhook",
            ReadAny,
            operation!(|c| async {
                let key = IdempotencyKey::absent();
                c.app.webhooks.rotate(WebhookId(404), c.caller, &key).await
            }),
        ),
        (
            "delete webhook",
            ReadAny,
            operation!(|c| c.app.webhooks.delete(WebhookId(404), c.caller)),
        ),
    ]
}

fn guest() -> PlayerId {
    "guest".parse().unwrap()
}

async fn read_player(call: &Call<'_>, player: PlayerId) -> Result<()> {
    let wallets = &call.app.wallets;
    wallets.main_balance(call.caller, &player, wallets.default_currency()).await.map(|_| ())
}

async fn spend_player(call: &Call<'_>, player: PlayerId) -> Result<()> {
    let wallets = &call.app.wallets;
    let currency = wallets.default_currency();
    wallets.withdraw_main(&player, currency, Minor(1), call.meta()).await.map(|_| ())
}

async fn transfer_players(call: &Call<'_>, from: PlayerId, to: PlayerId) -> Result<()> {
    let wallets = &call.app.wallets;
    let currency = wallets.default_currency();
    wallets.transfer_main((&from, &to), currency, Minor(1), call.meta()).await.map(|_| ())
}

async fn fund_player(call: &Call<'_>, player: PlayerId) -> Result<()> {
    let wallets = &call.app.wallets;
    let currency = wallets.default_currency();
    wallets.deposit_main(&player, currency, Minor(1), call.meta()).await.map(|_| ())
}

async fn change_user(app: &App, caller: &Caller, user: UserId) -> Result<()> {
    let origin = revwallet::http::origin::Origin { address: None, trace: Uuid::new_v4() };
    app.users.update(caller, origin, user, &ProfileChanges::default()).await
}

async fn create_alert(app: &App, caller: &Caller, wallet: WalletId) -> Result<()> {
    let key = IdempotencyKey::absent();
    let direction = revwallet::webhook::AlertDirection::Below;
    app.webhooks.create_alert(wallet, direction, "1", caller, &key).await.map(|_| ())
}

/// Returns whether the operation refused the caller; a hidden resource is reported as not found.
fn is_refused(outcome: &Result<()>) -> bool {
    fn is_refusal(error: &Error) -> bool {
        match error {
            Error::InBatch { error, .. } => is_refusal(error),
            Error::Unauthenticated(_)
            | Error::Forbidden
            | Error::ScopeMissing(_)
            | Error::UserRequired
            | Error::UserNotFound
            | Error::NotFound("wallet" | "hold" | "transfer") => true,
            _ => false,
        }
    }
    outcome.as_ref().err().is_some_and(is_refusal)
}

#[tokio::test]
async fn every_operation_authorizes_its_caller() {
    run(async |app| {
        let (owner, other) = (app.user("owner").await, app.user("other").await);
        let identify = async |user: &User| {
            let token = Secret::from(user.client.credential().to_owned());
            app.app().users.identify(&token).await.unwrap()
        };
        let (owner_user, other_user) = (identify(&owner).await, identify(&other).await);
        let mut violations = String::new();
        for (access, self_service_funding) in
            [(Access::Open, true), (Access::Open, false), (Access::Closed, false)]
        {
            let policy = Policy { access, self_service_funding };
            for is_owned in [true, false] {
                for tested in callers(&owner_user, &other_user, policy) {
                    let opener = if is_owned { &owner.client } else { &**app };
                    let resources = resources(app, opener, [owner_user.id, other_user.id]).await;
                    for (name, permission, operation) in operations() {
                        let key = IdempotencyKey::absent();
                        let (app, caller) = (app.app(), &tested.caller);
                        let call = Call { app, caller, key: &key, resources };
                        let outcome = operation(&call).await;
                        let may = tested.may(permission, is_owned, policy);
                        if is_refused(&outcome) == may {
                            writeln!(
                                violations,
                                "{name} by {} ({policy:?}, owned: {is_owned}): {outcome:?}",
                                tested.name
                            )
                            .unwrap();
                        }
                    }
                }
            }
        }
        assert!(violations.is_empty(), "{violations}");
    })
    .await;
}
