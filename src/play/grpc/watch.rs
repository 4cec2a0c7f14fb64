//! The gRPC method `WatchBalance`, which streams the changes to a player's balance without gaps or duplicates.

use futures_util::stream::{self, BoxStream, StreamExt};
use tonic::{Request, Status};

use super::WalletRpc;
use crate::error::{Error, Result};
use crate::grpc::proto::{WatchBalanceRequest, WatchBalanceResponse};
use crate::grpc::{CallMeta, StreamMeta};
use crate::ledger::currency::Currency;
use crate::play::feed::{BalanceData, balance_topic};
use crate::realtime::{Watch, WatchedEvent, Watcher};

type Responses = BoxStream<'static, Result<WatchBalanceResponse, Status>>;

impl WalletRpc {
    /// Streams the balance of a player. If the request contains a position, streams the changes after this position.
    /// Otherwise, streams the current balance and then every later change.
    pub(super) async fn follow_balance(
        &self,
        request: Request<WatchBalanceRequest>,
    ) -> Result<Responses> {
        let call = CallMeta::read(&request, &self.authenticator).await?;
        let meta = StreamMeta::read(&request, &self.trusted_proxies);
        let WatchBalanceRequest { user_id, currency, after } = request.into_inner();
        let (player, currency) = self.read_holder(&user_id, &currency)?;
        // Reading the balance also checks that the caller may see it.
        let current = self.wallets.main_balance(&call.caller, &player, currency).await?;
        let (caller, presented) = (call.caller, call.presented);
        let (address, closing) = (meta.address, meta.closing.clone());
        let watcher = Watcher { caller, presented, address, closing };
        let topic = balance_topic(&player, currency);
        let is_continued = !after.is_empty();
        let after = if is_continued { after } else { current.position.clone() };
        let watch = self.realtime.watch(&topic, &after, watcher).await?;
        let current = WatchBalanceResponse {
            balance: current.balance.0,
            currency: currency.code().to_owned(),
            position: current.position,
            transfer_id: String::new(),
        };
        let current = (!is_continued).then_some(Ok(current));
        Ok(stream::iter(current).chain(changes(watch, currency, meta)).boxed())
    }
}

/// Returns the changes to a balance as a stream. The stream ends after the first error.
fn changes(
    watch: Watch,
    currency: Currency,
    meta: StreamMeta,
) -> impl futures_util::Stream<Item = Result<WatchBalanceResponse, Status>> + Send {
    stream::unfold(Some(watch), move |watch| {
        let meta = meta.clone();
        async move {
            let mut watch = watch?;
            let next = async { response(&watch.next().await?, currency) };
            let response = meta.within_deadline(next).await;
            let rest = response.is_ok().then_some(watch);
            Some((response, rest))
        }
    })
}

fn response(watched: &WatchedEvent, currency: Currency) -> Result<WatchBalanceResponse> {
    let data = serde_json::from_str(&watched.data);
    let BalanceData { balance, transfer } = data.map_err(|cause| Error::Internal(cause.into()))?;
    Ok(WatchBalanceResponse {
        balance,
        currency: currency.code().to_owned(),
        position: watched.position.to_string(),
        transfer_id: transfer.to_string(),
    })
}
