import { setTimeout as setRealTimeout } from "node:timers";
import {
  type BudgetWindow,
  type LedgerBegin,
  type Reservation,
  type ReserveResult,
  TokenmanError,
} from "@tokenman/plugin-sdk";
import { Journal } from "./journal.ts";
import { holdLine, settleLine, type WindowKey } from "./journal-lines.ts";
import type { AllowanceAnswer, AllowanceAsk, WindowAmount } from "./messages.ts";
import { fits, type Purse, type PurseSet, Purses, refusal, settle, take } from "./purses.ts";

/** How long a settlement waits for others, or for a reservation, to share their way to the disk. */
const GATHER_MS = 80;
/** How long a reservation waits at most for others to share its write, where several have just been written together. */
const SHARE_MS = 1;
/** A journal's file that is longer is followed by a new one: so much is read after a crash. */
const MAX_BYTES = 2_000_000;
/** Answers to refused reservations, so that a repeated one is answered as the first was. */
const REMEMBERED = 10_000;
const RETRY_MS = 1_000;

/** What the writer does for reservations. All of it rejects with TM_LEDGER_UNAVAILABLE where the database cannot be written. */
export interface Allowances {
  /** The database is known not to take anything at present. */
  readonly isFailing: boolean;
  /** What is committed must outlive a power failure. */
  readonly isFlushed: boolean;
  /** How an exchange began whose row is here; undefined where it is not. */
  beginning(exchangeId: string): LedgerBegin | undefined;
  /** Resolves when all rows that were handed over are on disk; undefined where they are. */
  rowsWritten(): Promise<void> | undefined;
  /** Takes room in windows for this process: what it wants, and more where there is much. */
  allow(holder: string, journal: number, asks: readonly AllowanceAsk[]): Promise<readonly AllowanceAnswer[]>;
  /** What was spent so far is no part of the allowance any more; the journal counts from that file on. */
  fold(holder: string, journal: number, spent: readonly WindowAmount[]): Promise<void>;
  /** Gives back what is left, and keeps what is open. */
  leave(holder: string): Promise<void>;
  /** Settles a reservation that an earlier process left open. */
  settleLeft(id: string, spentNanoUsd: number, at: number): Promise<void>;
  used(holder: string, windows: readonly BudgetWindow[]): Promise<readonly number[]>;
}

/** A reservation, from the moment at which it is asked for until it is settled. */
class Hold {
  readonly reservation: Reservation;
  readonly nanoUsd: number;
  readonly set: PurseSet;
  readonly answer: Promise<ReserveResult>;
  resolve!: (result: ReserveResult) => void;
  reject!: (cause: unknown) => void;
  /** Once there is room for it. */
  result: ReserveResult | undefined;
  /** It is in the journal: before, it is neither told nor settled. */
  isWritten = false;

  constructor(reservation: Reservation, set: PurseSet) {
    this.reservation = reservation;
    // Exact sums are of whole numbers.
    this.nanoUsd = Math.max(0, Math.ceil(reservation.nanoUsd));
    this.set = set;
    this.answer = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
  }
}

/**
 * Decides on reservations, in the thread that proxies: its windows' purses have room that the database counts as used
 * already, so that nobody else can give it away. A decision is appended to the journal, and only the request itself waits
 * for that; those of one turn of the loop, or that come while others are being written, share one write. Where a purse
 * has not enough, as near a limit, the database is asked.
 */
export class Reserver {
  readonly #allowances: Allowances;
  readonly #holder: string;
  readonly #journal: Journal;
  readonly #purses = new Purses();
  /** By id: those that are neither refused nor settled. */
  readonly #open = new Map<string, Hold>();
  readonly #refused = new Map<string, ReserveResult>();
  /** Those that wait for room. */
  #waiting: Hold[] = [];
  #isAsking = false;
  /** What is to be written next, and who waits for it. */
  #holds = "";
  #settlements = "";
  #granting: Hold[] = [];
  #settling: PromiseWithResolvers<void> | undefined;
  /** Who waits for the next write to be over, whatever comes of it. */
  #tellers: (() => void)[] = [];
  #isWriting = false;
  #soon: NodeJS.Immediate | undefined;
  #sharing: NodeJS.Timeout | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** The file from which on the journal has all that is in `leased` of the purses. */
  #first = 1;
  /** What the database has to take over before it may forget older files, in order. */
  readonly #folds: { readonly journal: number; readonly spent: readonly WindowAmount[] }[] = [];
  #isFolding = false;
  readonly #maxBytes: number;
  #isClosing = false;
  /** The end waits for what is being written. */
  #idle: (() => void) | undefined;
  /** From then on nothing is written any more; resolves when the database knows what is open. */
  #leaving: PromiseWithResolvers<void> | undefined;

  /** `maxBytes`: a file of the journal that is longer is followed by a new one. */
  constructor(allowances: Allowances, database: string, holder: string, maxBytes = MAX_BYTES) {
    this.#allowances = allowances;
    this.#holder = holder;
    this.#maxBytes = maxBytes;
    this.#journal = new Journal(database, holder);
  }

  /** As {@link Ledger.reserve}. A repeated id is known until it is settled. */
  reserve(reservation: Reservation): Promise<ReserveResult> {
    const { id, windows } = reservation;
    const open = this.#open.get(id);
    if (open !== undefined) return open.answer;
    const refused = this.#refused.get(id);
    if (refused !== undefined) return Promise.resolve(refused);
    if (this.#isClosing) return Promise.reject(closed());
    const hold = new Hold(reservation, this.#purses.of(windows));
    this.#open.set(id, hold);
    const isReady = this.#journal.number > 0 && !this.#allowances.isFailing;
    if (isReady && fits(hold.set, hold.nanoUsd)) this.#grant(hold);
    else {
      this.#waiting.push(hold);
      if (!this.#isAsking) void this.#ask();
    }
    return hold.answer;
  }
  /** As {@link Ledger.settle}. */
  settle(id: string, spentNanoUsd: number, at: number): Promise<void> {
    const hold = this.#open.get(id);
    if (hold === undefined) return this.#allowances.settleLeft(id, spentNanoUsd, at);
    if (this.#leaving !== undefined)
      return this.#leaving.promise.then(() => this.#allowances.settleLeft(id, spentNanoUsd, at));
    if (!hold.isWritten) {
      const again = (): Promise<void> => this.settle(id, spentNanoUsd, at);
      return hold.answer.then(again, again);
    }
    const spent = Math.max(0, Math.round(spentNanoUsd));
    this.#open.delete(id);
    settle(hold.set, hold.nanoUsd, spent);
    this.#settlements += settleLine(id, spent);
    this.#timer ??= setRealTimeout(this.#write, GATHER_MS);
    this.#settling ??= Promise.withResolvers();
    return this.#settling.promise;
  }
  async used(windows: readonly BudgetWindow[]): Promise<readonly number[]> {
    // What is told as settled stays so over a crash.
    if (this.#settlements !== "")
      await new Promise<void>((resolve) => {
        this.#tellers.push(resolve);
        this.#write();
      });
    const used = await this.#allowances.used(this.#holder, windows);
    return windows.map((window, index) => {
      const purse = this.#purses.find(window);
      if (purse === undefined) return used[index]!;
      purse.used = used[index]!;
      return Math.max(0, purse.usedWith(0));
    });
  }
  /** Writes what there is, and gives back what is left. */
  async close(): Promise<void> {
    this.#isClosing = true;
    if (this.#journal.number === 0) return;
    const leaving = Promise.withResolvers<void>();
    const idle = new Promise<void>((resolve) => {
      this.#idle = () => {
        this.#leaving = leaving;
        resolve();
      };
    });
    if (!this.#isWriting) this.#write();
    await idle;
    clearTimeout(this.#timer);
    clearTimeout(this.#sharing);
    clearImmediate(this.#soon);
    this.#isWriting = true;
    await this.#journal.close();
    await this.#allowances.leave(this.#holder).catch(() => undefined);
    this.#settling?.reject(closed());
    // Before whoever waits for this closes the database.
    leaving.resolve();
  }

  #grant(hold: Hold): void {
    const { reservation, set, nanoUsd } = hold;
    hold.result = take(set, nanoUsd);
    const begin = this.#allowances.beginning(reservation.exchangeId);
    const rows = begin === undefined ? this.#allowances.rowsWritten() : undefined;
    if (rows === undefined) this.#append(hold, begin);
    // Its row is on its way to the database, and must be there before the request goes out.
    else
      rows.then(
        () => {
          if (this.#isClosing) this.#withdraw(hold, closed());
          // It is kept until the disk takes it again.
          else if (this.#allowances.isFailing) this.#withdraw(hold, undefined);
          else this.#append(hold, undefined);
        },
        (cause: unknown) => this.#withdraw(hold, cause),
      );
  }
  #append(hold: Hold, begin: LedgerBegin | undefined): void {
    this.#holds += holdLine(hold.reservation, hold.nanoUsd, hold.set.text, begin);
    this.#granting.push(hold);
    // At the end of this turn of the loop, with what else is asked in it.
    if (!this.#isWriting && this.#sharing === undefined) this.#soon ??= setImmediate(this.#write);
  }
  /** It was not granted, or nobody was told so. */
  #withdraw(hold: Hold, cause: unknown): void {
    if (this.#open.delete(hold.reservation.id) && hold.result !== undefined)
      settle(hold.set, hold.nanoUsd, 0);
    hold.reject(unavailable("a reservation could not be written", cause));
  }

  readonly #write = (): void => {
    clearTimeout(this.#timer);
    clearImmediate(this.#soon);
    this.#timer = undefined;
    this.#soon = undefined;
    // Afterwards it is looked at what has come meanwhile.
    if (this.#isWriting) return;
    const lines = this.#holds + this.#settlements;
    if (lines === "") {
      this.#idle?.();
      return;
    }
    const settlements = this.#settlements;
    const granting = this.#granting;
    const settling = this.#settling;
    const tellers = this.#tellers;
    this.#tellers = [];
    this.#holds = "";
    this.#settlements = "";
    this.#granting = [];
    this.#settling = undefined;
    this.#isWriting = true;
    // Where one comes after another, nobody would share with it.
    if (granting.length > 1) this.#sharing ??= setRealTimeout(this.#shared, SHARE_MS);
    this.#journal.write(lines, this.#allowances.isFlushed, (failed) => {
      this.#isWriting = false;
      for (const tell of tellers) tell();
      if (failed === undefined) {
        for (const hold of granting) {
          hold.isWritten = true;
          hold.resolve(hold.result!);
        }
        settling?.resolve();
        if (this.#journal.size > this.#maxBytes && this.#idle === undefined) void this.#nextFile();
        else this.#writeMore(GATHER_MS);
        return;
      }
      for (const hold of granting) this.#withdraw(hold, failed);
      // They are in the purses, and must get to the disk some time.
      this.#settlements = settlements + this.#settlements;
      if (settling !== undefined) {
        this.#settling?.promise.then(settling.resolve, settling.reject);
        this.#settling ??= settling;
      }
      if (this.#idle !== undefined) this.#idle();
      else this.#writeMore(RETRY_MS);
    });
  };

  readonly #shared = (): void => {
    this.#sharing = undefined;
    if (this.#granting.length > 0) this.#write();
  };
  /** What has come while something was written: at once where somebody waits for it. */
  #writeMore(waitMs: number): void {
    const isWaitedFor = this.#granting.length > 0 && this.#sharing === undefined;
    if (isWaitedFor || this.#tellers.length > 0 || this.#idle !== undefined) this.#write();
    else if (this.#settlements !== "") this.#timer ??= setRealTimeout(this.#write, waitMs);
  }

  /** Begins a new file with what is open, and has the database take over what was spent before it. */
  async #nextFile(): Promise<void> {
    this.#isWriting = true;
    try {
      await this.#journal.next();
      let lines = "";
      // Those that are not written yet come after these.
      for (const { isWritten, reservation, nanoUsd, set } of this.#open.values())
        if (isWritten) lines += holdLine(reservation, nanoUsd, set.text, undefined);
      const spent: [Purse, number][] = [];
      for (const purse of this.#purses.all()) spent.push([purse, purse.leased - purse.free - purse.open]);
      await new Promise<void>((resolve, reject) => {
        this.#journal.write(lines, this.#allowances.isFlushed, (failed) =>
          failed === undefined ? resolve() : reject(failed),
        );
      });
      for (const [purse, nanoUsd] of spent) purse.leased -= nanoUsd;
      const amounts = spent.map(([{ window }, nanoUsd]) => ({ ...windowKey(window), nanoUsd }));
      this.#first = this.#journal.number;
      this.#folds.push({ journal: this.#first, spent: amounts });
      if (!this.#isFolding) void this.#fold();
    } catch {
      // Without what is open in it, the new file goes on from the last one; or there is none, and the last one grows.
    }
    this.#isWriting = false;
    this.#write();
  }
  /** One that fails, or whose answer is lost, is told again, with the next one: the database takes over each of them once. */
  async #fold(): Promise<void> {
    this.#isFolding = true;
    try {
      for (let fold = this.#folds[0]; fold !== undefined; fold = this.#folds[0]) {
        await this.#allowances.fold(this.#holder, fold.journal, fold.spent);
        this.#folds.shift();
        await this.#journal.removeOlder(fold.journal);
      }
    } catch {
      // The files stay, and count.
    }
    this.#isFolding = false;
  }

  /** Asks for the room that is missing. What comes while that is under way is asked for afterwards. */
  async #ask(): Promise<void> {
    this.#isAsking = true;
    while (this.#waiting.length > 0) {
      const asked = this.#waiting;
      this.#waiting = [];
      try {
        if (this.#isClosing) throw closed();
        if (this.#journal.number === 0) await this.#firstFile();
        await this.#enlarge(asked);
        // The database gives back what it has just allowed.
        if (this.#isClosing) throw closed();
      } catch (cause) {
        for (const hold of asked) this.#withdraw(hold, cause);
        continue;
      }
      for (const hold of asked) {
        const refused = refusal(hold.set, hold.nanoUsd);
        if (refused === undefined && fits(hold.set, hold.nanoUsd)) this.#grant(hold);
        // Others took what was there, or what is spent came back too late to count.
        else if (refused === undefined) this.#waiting.push(hold);
        else this.#refuse(hold, refused);
      }
    }
    this.#isAsking = false;
  }
  async #firstFile(): Promise<void> {
    await this.#journal.next();
    if (!this.#isClosing) return;
    // The end has not seen it.
    await this.#journal.close();
    await this.#journal.removeOlder(this.#journal.number + 1);
    throw closed();
  }
  async #enlarge(asked: readonly Hold[]): Promise<void> {
    const asks = new Map<Purse, AllowanceAsk>();
    for (const { set, nanoUsd } of asked) {
      for (const [index, purse] of set.purses.entries()) {
        const { limitNanoUsd } = set.windows[index]!;
        const known = asks.get(purse);
        const want = (known?.want ?? -purse.free) + nanoUsd;
        const limit = Math.max(nanoUsd === 0 ? 0 : limitNanoUsd, known?.window.limitNanoUsd ?? 0);
        const window = { ...purse.window, limitNanoUsd: limit };
        asks.set(purse, { window, leased: purse.leased, want });
      }
    }
    const purses = [...asks.keys()];
    const answers = await this.#allowances.allow(this.#holder, this.#first, [...asks.values()]);
    for (const [index, { used, granted }] of answers.entries()) {
      const purse = purses[index]!;
      purse.leased += granted;
      purse.free += granted;
      purse.used = used;
    }
  }
  #refuse(hold: Hold, result: ReserveResult): void {
    if (this.#refused.size >= REMEMBERED) this.#refused.delete(this.#refused.keys().next().value!);
    this.#refused.set(hold.reservation.id, result);
    this.#open.delete(hold.reservation.id);
    hold.resolve(result);
  }
}

function windowKey({ scope, period, from }: BudgetWindow): WindowKey {
  return { scope, period, from };
}

function closed(): TokenmanError {
  return new TokenmanError("TM_LEDGER_UNAVAILABLE", "the ledger is closed");
}

function unavailable(message: string, cause: unknown): TokenmanError {
  return cause instanceof TokenmanError
    ? cause
    : new TokenmanError("TM_LEDGER_UNAVAILABLE", message, { cause });
}
