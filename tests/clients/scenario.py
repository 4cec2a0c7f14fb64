"""A first integration with the generated Python client: money in and out, a game, an order, and a problem.

Usage: scenario.py URL API_KEY    with the client, generated for `Prefer: money=string`, as the module `wallet_client`
"""

import re
import sys
import time

from wallet_client import AuthenticatedClient, Client
from wallet_client.api.exchange import buy_crypto, get_exchange_wallet, get_order, open_exchange_wallet
from wallet_client.api.games import add_game, purchase_game
from wallet_client.api.play import deposit_to_player
from wallet_client.api.users import get_signed_in_user, login, register_user
from wallet_client.api.wallet import (
    capture_hold, create_hold, create_transfer, create_wallet, deposit, get_balance, get_transfer, list_history,
    list_wallets, withdraw,
)
from wallet_client.models import (
    CaptureHold, CreateHold, CreateTransfer, CreateWallet, Login, MoveMoney, MovePlayerMoney, NewExchangeOrder,
    ProfileChange, Problem, PurchaseGame, PutGame, SagaState, TransferKind,
)

url, key = sys.argv[1:]
server = AuthenticatedClient(base_url=url, token=key)


def expect(actual, expected):
    assert actual == expected, f"{actual!r} instead of {expected!r}"


def open_wallet(currency, balance):
    body = CreateWallet(owner="python", currency=currency, initial_balance=balance)
    opened = create_wallet.sync(client=server, body=body)
    expect(opened.balance, balance)
    return opened


# Amounts that a double does not hold go through the client and back.
for currency, amount in (("CENTI", "90071992547409.91"), ("BTC", "0.00000001")):
    wallet = open_wallet(currency, amount)
    read = get_balance.sync(wallet.id, client=server)
    expect(read.balance, amount)
    emptied = withdraw.sync(client=server, body=MoveMoney(id=wallet.id, amount=read.balance))
    expect(float(emptied.balance), 0.0)

# A deposit takes effect once, however often it is sent.
wallet, shop = open_wallet("EUR", "0.00"), open_wallet("EUR", "0.00")
body = MoveMoney(id=wallet.id, amount="100.10", memo="card payment")
answers = [
    deposit.sync_detailed(client=server, body=body, idempotency_key=f"python-{wallet.id}") for _ in range(2)
]
for answer in answers:
    expect((answer.parsed.balance, answer.headers["preference-applied"]), ("100.10", "money=string"))
expect(answers[1].headers["idempotent-replayed"], "true")
expect(answers[1].parsed.transfer, answers[0].parsed.transfer)
expect(get_transfer.sync(answers[0].parsed.transfer, client=server).memo, "card payment")

# A hold is captured in part; the rest is released.
hold = create_hold.sync(client=server, body=CreateHold(id=wallet.id, amount="30"))
captured = capture_hold.sync(hold.id, client=server, body=CaptureHold(amount="20", to=shop.id))
expect((captured.captured, captured.released, captured.state), ("20.00", "10.00", "captured"))
expect(get_balance.sync(wallet.id, client=server).balance, "80.10")

# A refusal is a problem with the amounts in question.
body = CreateTransfer(from_=wallet.id, to=shop.id, amount="80.11")
refused = create_transfer.sync_detailed(client=server, body=body)
expect((int(refused.status_code), type(refused.parsed)), (422, Problem))
expect((refused.parsed.type_, refused.parsed.available), ("/problems/insufficient-funds", "80.10"))

# Page by page, as the header Link says.
for _ in range(5):
    deposit.sync(client=server, body=MoveMoney(id=wallet.id, amount="1"))
pages, after = [], None
while True:
    page = list_history.sync_detailed(wallet.id, client=server, limit=3, **({"after": after} if after else {}))
    pages.append([entry.id for entry in page.parsed if entry.kind == TransferKind.DEPOSIT])
    if "link" not in page.headers:
        break
    after = int(re.search(r"after=(\d+)", page.headers["link"])[1])
entries = [entry for page in pages for entry in page]
expect((len(entries), len(set(entries))), (6, 6))
assert any(listed.id == wallet.id for listed in list_wallets.sync(client=server, owner="python", limit=1000))

# A user buys a game and some bitcoin.
name = f"python{wallet.id}"
registration = ProfileChange(username=name, email=f"{name}@example.com", password="correct horse battery")
user_id = register_user.sync(client=Client(base_url=url), body=registration).id
token = login.sync(client=Client(base_url=url), body=Login(username=name, password=registration.password)).token
user = AuthenticatedClient(base_url=url, token=token)
expect(get_signed_in_user.sync(client=user).username, name)
open_exchange_wallet.sync(int(user_id), client=user)
deposit_to_player.sync(client=server, body=MovePlayerMoney(user_id=user_id, amount=10_000))
game = add_game.sync(client=server, body=PutGame(title="Alpha", genre="puzzle", price="19.99", description="A game"))
bought = purchase_game.sync(game.game_id, client=user, body=PurchaseGame(expected_price="19.99"))
expect((bought.price, bought.currency), ("19.99", "EUR"))
order_id = buy_crypto.sync(int(user_id), client=user, body=NewExchangeOrder(fiat_amount="30.00")).order_id
for _ in range(600):
    order = get_order.sync(order_id, client=user)
    if order.state in (SagaState.COMPLETED, SagaState.FAILED):
        break
    time.sleep(0.1)
expect((order.state, order.fiat_amount), (SagaState.COMPLETED, "30.00"))
expect(get_exchange_wallet.sync(int(user_id), client=user).crypto_amount, order.crypto_amount)
