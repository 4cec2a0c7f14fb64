//! The gRPC service `revwallet.v1.WalletService`: operations on the wallets of players.

mod post_stream;
mod watch;

use std::sync::Arc;

use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use crate::auth::{Authenticator, TrustedProxies};
use crate::error::{Error, Result};
use crate::grpc::proto::wallet_service_server::{WalletService, WalletServiceServer};
use crate::grpc::proto::{
    DepositRequest, DepositResponse, GetBalanceRequest, GetBalanceResponse, PostStreamRequest,
    PostStreamResponse, PostedItem, TransferRequest, TransferResponse, WatchBalanceRequest,
    WatchBalanceResponse, WithdrawRequest, WithdrawResponse,
};
use crate::grpc::{CallMeta, MESSAGE_BYTES_MAX, reply};
use crate::http::extract::Validator;
use crate::http::rpc::status;
use crate::ids::{InvalidPlayerId, PlayerId};
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::play::http::MoveMoney;
use crate::realtime::Realtime;
use crate::telemetry::Metrics;
use crate::wallet::main_wallet::MainPosting;
use crate::wallet::{RequestMeta, Wallets};

pub use self::post_stream::StreamLimit;

/// Implementation of the gRPC wallet service. Cheap to clone.
#[derive(Clone)]
pub struct WalletRpc {
    pub wallets: Wallets,
    pub realtime: Realtime,
    pub authenticator: Authenticator,
    pub trusted_proxies: TrustedProxies,
    pub metrics: Arc<Metrics>,
    pub stream_limit: StreamLimit,
}

impl WalletRpc {
    /// Converts the implementation to the service that the router serves.
    pub fn service(self) -> WalletServiceServer<Self> {
        post_stream::preregister(&self.metrics);
        WalletServiceServer::new(self).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

fn player(text: &str) -> Result<PlayerId, String> {
    text.parse().map_err(|cause: InvalidPlayerId| cause.to_string())
}

fn minor_units(amount: i64) -> Result<Minor, String> {
    Minor::parse_minor_units(&amount.to_string()).map_err(|cause| cause.to_string())
}

/// Returns the currency with the given code, or the default currency if the code is empty.
fn currency(wallets: &Wallets, code: &str) -> Result<Currency, String> {
    let default = wallets.default_currency();
    if code.is_empty() { Ok(default) } else { wallets.currencies().supported(code) }
}

impl CallMeta {
    fn request_meta(&self) -> RequestMeta<'_> {
        RequestMeta { caller: &self.caller, key: &self.key, trace: self.trace }
    }
}

impl WalletRpc {
    /// Identifies the caller and reads the idempotency key of a call that moves money.
    async fn read_call<T>(&self, request: &Request<T>) -> Result<CallMeta, Status> {
        CallMeta::read(request, &self.authenticator).await.map_err(status::from_error)
    }

    /// Parses the player's id and the currency code of a request.
    fn read_holder(&self, user_id: &str, code: &str) -> Result<(PlayerId, Currency)> {
        let mut validator = Validator::default();
        let player = validator.check("/user_id", player(user_id));
        let currency = validator.check("/currency", currency(&self.wallets, code));
        validator.finish(player.zip(currency))
    }

    /// Validates the fields of a request to deposit to, or withdraw from, a player's wallet.
    fn read_movement(&self, user_id: &str, amount: i64, code: &str) -> Result<MoveMoney> {
        let mut validator = Validator::default();
        let player = validator.check("/user_id", player(user_id));
        let amount = validator.check("/amount", minor_units(amount));
        let currency = validator.check("/currency", currency(&self.wallets, code));
        let (player, (amount, currency)) = validator.finish(player.zip(amount.zip(currency)))?;
        Ok(MoveMoney { player, amount, currency })
    }

    async fn read_balance(
        &self,
        request: Request<GetBalanceRequest>,
    ) -> Result<GetBalanceResponse> {
        let meta = CallMeta::read(&request, &self.authenticator).await?;
        let GetBalanceRequest { user_id, currency } = request.get_ref();
        let (player, currency) = self.read_holder(user_id, currency)?;
        let found = self.wallets.main_balance(&meta.caller, &player, currency).await?;
        Ok(GetBalanceResponse {
            balance: found.balance.0,
            currency: currency.code().to_owned(),
            position: found.position,
        })
    }

    async fn post_deposit(
        &self,
        message: &DepositRequest,
        meta: RequestMeta<'_>,
    ) -> Result<MainPosting> {
        let DepositRequest { user_id, amount, currency } = message;
        let MoveMoney { player, amount, currency } =
            self.read_movement(user_id, *amount, currency)?;
        let posting = self.wallets.deposit_main(&player, currency, amount, meta).await;
        posting.map_err(|error| with_field(error, "user_id"))
    }

    async fn post_withdrawal(
        &self,
        message: &WithdrawRequest,
        meta: RequestMeta<'_>,
    ) -> Result<MainPosting> {
        let WithdrawRequest { user_id, amount, currency } = message;
        let MoveMoney { player, amount, currency } =
            self.read_movement(user_id, *amount, currency)?;
        let posting = self.wallets.withdraw_main(&player, currency, amount, meta).await;
        posting.map_err(|error| with_field(error, "user_id"))
    }

    async fn post_transfer(
        &self,
        message: &TransferRequest,
        meta: RequestMeta<'_>,
    ) -> Result<MainPosting> {
        let TransferRequest { from_user_id, to_user_id, amount, currency: code } = message;
        let mut validator = Validator::default();
        let from = validator.check("/from_user_id", player(from_user_id));
        let to = validator.check("/to_user_id", player(to_user_id));
        let amount = validator.check("/amount", minor_units(*amount));
        let currency = validator.check("/currency", currency(&self.wallets, code));
        let (players, (amount, currency)) =
            validator.finish(from.zip(to).zip(amount.zip(currency)))?;
        let players = (&players.0, &players.1);
        self.wallets.transfer_main(players, currency, amount, meta).await
    }
}

/// Implements the conversion of a posting to a response message, for each of the given message types.
macro_rules! from_posting {
    ($($message:ident)*) => {$(
        impl From<MainPosting> for $message {
            fn from(posting: MainPosting) -> Self {
                Self {
                    balance: posting.balance.0,
                    currency: posting.currency.code().to_owned(),
                    transfer_id: posting.transfer.to_string(),
                    replayed: posting.replayed,
                }
            }
        }
    )*};
}

from_posting! { DepositResponse WithdrawResponse TransferResponse PostedItem }

/// Makes an error about a wallet refer to the request field that contains the player's id.
fn with_field(error: Error, field: &str) -> Error {
    error.with_pointer(|_| Some(format!("/{field}")))
}

#[tonic::async_trait]
impl WalletService for WalletRpc {
    async fn get_balance(
        &self,
        request: Request<GetBalanceRequest>,
    ) -> Result<Response<GetBalanceResponse>, Status> {
        reply(self.read_balance(request).await)
    }

    async fn deposit(
        &self,
        request: Request<DepositRequest>,
    ) -> Result<Response<DepositResponse>, Status> {
        let call = self.read_call(&request).await?;
        let posted = self.post_deposit(request.get_ref(), call.request_meta()).await;
        reply(posted.map(Into::into))
    }

    async fn withdraw(
        &self,
        request: Request<WithdrawRequest>,
    ) -> Result<Response<WithdrawResponse>, Status> {
        let call = self.read_call(&request).await?;
        let posted = self.post_withdrawal(request.get_ref(), call.request_meta()).await;
        reply(posted.map(Into::into))
    }

    async fn transfer(
        &self,
        request: Request<TransferRequest>,
    ) -> Result<Response<TransferResponse>, Status> {
        let call = self.read_call(&request).await?;
        let posted = self.post_transfer(request.get_ref(), call.request_meta()).await;
        reply(posted.map(Into::into))
    }

    type PostStreamStream = BoxStream<'static, Result<PostStreamResponse, Status>>;

    async fn post_stream(
        &self,
        request: Request<Streaming<PostStreamRequest>>,
    ) -> Result<Response<Self::PostStreamStream>, Status> {
        reply(self.post_items(request).await)
    }

    type WatchBalanceStream = BoxStream<'static, Result<WatchBalanceResponse, Status>>;

    async fn watch_balance(
        &self,
        request: Request<WatchBalanceRequest>,
    ) -> Result<Response<Self::WatchBalanceStream>, Status> {
        reply(self.follow_balance(request).await)
    }
}
