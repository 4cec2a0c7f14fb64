// A first integration with generated TypeScript types: money in and out, a game, an order, and a problem.
// Usage: node scenario.js URL API_KEY    with the types, generated for `Prefer: money=string`, in `./api`
import createClient from "openapi-fetch";
import type { components, paths } from "./api";

declare const process: { argv: string[]; exit(code: number): never };

const [url, key] = process.argv.slice(2) as [string, string];
const connect = (credential?: string) =>
  createClient<paths>({ baseUrl: url, headers: credential ? { Authorization: `Bearer ${credential}` } : {} });
const server = connect(key);
// Every answer has its amounts as strings: the types hold only with this header, so they require it.
const header = { Prefer: "money=string" } as const;

type Problem = components["schemas"]["Problem"];
type Outcome<Data> = { data?: Data; error?: unknown; response: Response };

function expect(actual: unknown, expected: unknown): void {
  const [found, wanted] = [JSON.stringify(actual), JSON.stringify(expected)];
  if (found !== wanted) throw new Error(`${found} instead of ${wanted}`);
}

/** The body of a successful answer. */
async function ok<Data>(outcome: Promise<Outcome<Data>>): Promise<Data> {
  const { data, error, response } = await outcome;
  if (data === undefined) throw new Error(`${response.url} answered ${response.status}: ${JSON.stringify(error)}`);
  return data;
}

async function openWallet(currency: string, balance: string) {
  const body = { owner: "typescript", currency, initial_balance: balance };
  const opened = await ok(server.POST("/wallet", { params: { header }, body }));
  expect(opened.balance, balance);
  return opened;
}

const balance = async (id: string): Promise<string> =>
  (await ok(server.GET("/wallet/balance/{id}", { params: { header, path: { id } } }))).balance;

async function amountsComeBackExactly() {
  for (const [currency, amount] of [["CENTI", "90071992547409.91"], ["BTC", "0.00000001"]] as const) {
    const { id } = await openWallet(currency, amount);
    expect(await balance(id), amount);
    const emptied = await ok(server.POST("/wallet/withdraw", { params: { header }, body: { id, amount: await balance(id) } }));
    expect(Number(emptied.balance), 0);
  }
}

async function walletsAndHolds() {
  const [wallet, shop] = [await openWallet("EUR", "0.00"), await openWallet("EUR", "0.00")];
  const once = { params: { header: { ...header, "Idempotency-Key": `typescript-${wallet.id}` } } };
  const body = { id: wallet.id, amount: "100.10", memo: "card payment" };
  const [first, again] = [
    await server.POST("/wallet/deposit", { ...once, body }),
    await server.POST("/wallet/deposit", { ...once, body }),
  ];
  expect([first.data?.balance, again.data?.balance], ["100.10", "100.10"]);
  expect([again.data?.transfer, again.response.headers.get("idempotent-replayed")], [first.data?.transfer, "true"]);

  const hold = await ok(server.POST("/wallet/hold", { params: { header }, body: { id: wallet.id, amount: "30" } }));
  const capture = { params: { header, path: { hold: hold.id } }, body: { amount: "20", to: shop.id } };
  const captured = await ok(server.POST("/wallet/hold/{hold}/capture", capture));
  expect([captured.captured, captured.released, captured.state], ["20.00", "10.00", "captured"]);
  expect(await balance(wallet.id), "80.10");

  const transfer = { from: wallet.id, to: shop.id, amount: "80.11" };
  const refused = await server.POST("/wallet/transfer", { params: { header }, body: transfer });
  const problem = refused.error as Problem;
  expect([refused.response.status, problem.type, problem.available], [422, "/problems/insufficient-funds", "80.10"]);
  return wallet;
}

async function pages(id: string) {
  for (let n = 0; n < 5; n += 1) {
    await ok(server.POST("/wallet/deposit", { params: { header }, body: { id, amount: "1" } }));
  }
  const entries: string[] = [];
  for (let after: number | undefined, isLast = false; !isLast;) {
    const query = { limit: 3, ...(after === undefined ? {} : { after }) };
    const page = await server.GET("/wallet/{id}/history", { params: { header, path: { id }, query } });
    const deposits = (page.data ?? []).filter((entry) => entry.kind === "deposit");
    entries.push(...deposits.map((entry) => entry.id));
    const next = /after=(\d+)/.exec(page.response.headers.get("link") ?? "");
    isLast = next === null;
    after = Number(next?.[1]);
  }
  expect([entries.length, new Set(entries).size], [6, 6]);
}

async function gameAndOrder(name: string) {
  const registration = { username: name, email: `${name}@example.com`, password: "correct horse battery" };
  const { id } = await ok(connect().POST("/api/users/register", { params: { header }, body: registration }));
  const login = { username: name, password: registration.password };
  const { token } = await ok(connect().POST("/api/users/login", { params: { header }, body: login }));
  const user = connect(token);
  expect((await ok(user.GET("/api/users/me", { params: { header } }))).username, name);
  const path = { user_id: Number(id) };
  await ok(user.POST("/exchange/wallet/{user_id}", { params: { header, path } }));
  await ok(server.POST("/api/wallet/deposit", { params: { header }, body: { userId: id, amount: 10_000 } }));

  const game = { title: "Alpha", genre: "puzzle", price: "19.99", description: "A game" };
  const { gameId } = await ok(server.POST("/api/games", { params: { header }, body: game }));
  const purchase = { params: { header, path: { id: gameId } }, body: { expected_price: "19.99" } };
  expect((await ok(user.POST("/api/games/{id}/purchase", purchase))).price, "19.99");

  const buy = { params: { header, path }, body: { fiat_amount: "30.00" } };
  const { order_id } = await ok(user.POST("/exchange/buy/{user_id}", buy));
  const read = () => ok(user.GET("/exchange/order/{order_id}", { params: { header, path: { order_id } } }));
  let order = await read();
  for (let n = 0; n < 600 && order.state !== "completed" && order.state !== "failed"; n += 1) {
    await new Promise<void>((resolve) => setTimeout(resolve, 100));
    order = await read();
  }
  expect([order.state, order.fiat_amount], ["completed", "30.00"]);
  const wallet = await ok(user.GET("/exchange/wallet/{user_id}", { params: { header, path } }));
  expect(wallet.crypto_amount, order.crypto_amount);
}

await amountsComeBackExactly();
const wallet = await walletsAndHolds();
await pages(wallet.id);
await gameAndOrder(`typescript${wallet.id}`);
