//! `revwallet.v1.WalletService`: wallets of players over gRPC.

mod watch;

use futures_util::stream::BoxStream;
use tonic::{Request, Response, Status};

use crate::auth::{Authenticator, TrustedProxies};
use crate::error::{Error, FieldError, Result};
use crate::grpc::proto::wallet_service_server::{WalletService, WalletServiceServer};
use crate::grpc::proto::{
    DepositRequest, DepositResponse, GetBalanceRequest, GetBalanceResponse, TransferRequest,
    TransferResponse, WatchBalanceRequest, WatchBalanceResponse, WithdrawRequest, WithdrawResponse,
};
use crate::grpc::{CallMeta, MESSAGE_BYTES_MAX, reply};
use crate::ids::PlayerId;
use crate::ledger::currency::Currency;
use crate::ledger::money::Minor;
use crate::realtime::Realtime;
use crate::wallet::{RequestMeta, Wallets};

/// The service. Cheap to clone.
#[derive(Clone)]
pub struct WalletRpc {
    pub wallets: Wallets,
    pub realtime: Realtime,
    pub authenticator: Authenticator,
    pub trusted_proxies: TrustedProxies,
}

impl WalletRpc {
    /// The service for the router.
    pub fn service(self) -> WalletServiceServer<Self> {
        WalletServiceServer::new(self).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// Collects the broken fields of a message.
#[derive(Default)]
struct Fields(Vec<FieldError>);

impl Fields {
    fn check<T>(&mut self, name: &str, outcome: Result<T, String>) -> Option<T> {
        let refuse = |detail| self.0.push(FieldError { pointer: format!("/{name}"), detail });
        outcome.map_err(refuse).ok()
    }

    fn player(&mut self, name: &str, text: &str) -> Option<PlayerId> {
        self.check(
            name,
            text.parse().map_err(|cause: crate::ids::InvalidPlayerId| cause.to_string()),
        )
    }

    fn amount(&mut self, amount: i64) -> Option<Minor> {
        let text = amount.to_string();
        let parsed = Minor::parse_minor_units(&text).map_err(|cause| cause.to_string());
        self.check("amount", parsed)
    }

    fn currency(&mut self, wallets: &Wallets, code: &str) -> Option<Currency> {
        if code.is_empty() {
            return Some(wallets.default_currency());
        }
        let found = wallets.currencies().find(code);
        self.check("currency", found.ok_or_else(|| "is not a supported currency".to_owned()))
    }

    fn finish<T>(self, values: Option<T>) -> Result<T> {
        match values {
            Some(values) if self.0.is_empty() => Ok(values),
            _ => Err(Error::Invalid(self.0)),
        }
    }
}

impl CallMeta {
    fn request_meta(&self) -> RequestMeta<'_> {
        RequestMeta { caller: &self.caller, key: &self.key, trace: self.trace }
    }
}

impl WalletRpc {
    async fn read_balance(
        &self,
        request: Request<GetBalanceRequest>,
    ) -> Result<GetBalanceResponse> {
        let meta = CallMeta::read(&request, &self.authenticator).await?;
        let GetBalanceRequest { user_id, currency } = request.get_ref();
        let mut fields = Fields::default();
        let player = fields.player("user_id", user_id);
        let currency = fields.currency(&self.wallets, currency);
        let (player, currency) = fields.finish(player.zip(currency))?;
        let found = self.wallets.main_balance(&meta.caller, &player, currency).await?;
        Ok(GetBalanceResponse {
            balance: found.balance.0,
            currency: currency.code().to_owned(),
            position: found.position,
        })
    }

    async fn post_deposit(&self, request: Request<DepositRequest>) -> Result<DepositResponse> {
        let meta = CallMeta::read(&request, &self.authenticator).await?;
        let DepositRequest { user_id, amount, currency } = request.get_ref();
        let mut fields = Fields::default();
        let player = fields.player("user_id", user_id);
        let amount = fields.amount(*amount);
        let currency = fields.currency(&self.wallets, currency);
        let (player, (amount, currency)) = fields.finish(player.zip(amount.zip(currency)))?;
        let meta = meta.request_meta();
        let posting = self.wallets.deposit_main(&player, currency, amount, meta).await;
        let posting = posting.map_err(|error| at(error, "user_id"))?;
        Ok(DepositResponse {
            balance: posting.balance.0,
            currency: currency.code().to_owned(),
            transfer_id: posting.transfer.to_string(),
            replayed: posting.replayed,
        })
    }

    async fn post_withdrawal(&self, request: Request<WithdrawRequest>) -> Result<WithdrawResponse> {
        let meta = CallMeta::read(&request, &self.authenticator).await?;
        let WithdrawRequest { user_id, amount, currency } = request.get_ref();
        let mut fields = Fields::default();
        let player = fields.player("user_id", user_id);
        let amount = fields.amount(*amount);
        let currency = fields.currency(&self.wallets, currency);
        let (player, (amount, currency)) = fields.finish(player.zip(amount.zip(currency)))?;
        let meta = meta.request_meta();
        let posting = self.wallets.withdraw_main(&player, currency, amount, meta).await;
        let posting = posting.map_err(|error| at(error, "user_id"))?;
        Ok(WithdrawResponse {
            balance: posting.balance.0,
            currency: currency.code().to_owned(),
            transfer_id: posting.transfer.to_string(),
            replayed: posting.replayed,
        })
    }

    async fn post_transfer(&self, request: Request<TransferRequest>) -> Result<TransferResponse> {
        let meta = CallMeta::read(&request, &self.authenticator).await?;
        let TransferRequest { from_user_id, to_user_id, amount, currency } = request.get_ref();
        let mut fields = Fields::default();
        let from = fields.player("from_user_id", from_user_id);
        let to = fields.player("to_user_id", to_user_id);
        let amount = fields.amount(*amount);
        let currency = fields.currency(&self.wallets, currency);
        if from.is_some() && from == to {
            fields.check::<()>("to_user_id", Err("must differ from from_user_id".to_owned()));
        }
        let (players, (amount, currency)) =
            fields.finish(from.zip(to).zip(amount.zip(currency)))?;
        let players = (&players.0, &players.1);
        let meta = meta.request_meta();
        let posting = self.wallets.transfer_main(players, currency, amount, meta).await?;
        Ok(TransferResponse {
            balance: posting.balance.0,
            currency: currency.code().to_owned(),
            transfer_id: posting.transfer.to_string(),
            replayed: posting.replayed,
        })
    }
}

/// Points an error about a wallet to the field that names its player.
fn at(error: Error, field: &str) -> Error {
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
        reply(self.post_deposit(request).await)
    }

    async fn withdraw(
        &self,
        request: Request<WithdrawRequest>,
    ) -> Result<Response<WithdrawResponse>, Status> {
        reply(self.post_withdrawal(request).await)
    }

    async fn transfer(
        &self,
        request: Request<TransferRequest>,
    ) -> Result<Response<TransferResponse>, Status> {
        reply(self.post_transfer(request).await)
    }

    type WatchBalanceStream = BoxStream<'static, Result<WatchBalanceResponse, Status>>;

    async fn watch_balance(
        &self,
        request: Request<WatchBalanceRequest>,
    ) -> Result<Response<Self::WatchBalanceStream>, Status> {
        reply(self.follow_balance(request).await)
    }
}
