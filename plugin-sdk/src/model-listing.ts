import type { RawHeaders } from "./headers.ts";

/** One model of a list, with what is known of it in any format. */
export interface ListedModel {
  readonly id: string;
  /** Milliseconds since the epoch. */
  readonly createdAt?: number;
  readonly displayName?: string;
  readonly ownedBy?: string;
  /** The entry as its provider wrote it, and the format whose shape that is: it is passed on as it came. */
  readonly entry?: { readonly format: string; readonly json: string };
}

/** A page of a provider's list. */
export interface ModelPage {
  readonly models: readonly ListedModel[];
  /** What {@link ModelListing.path} takes for the next page; undefined on the last one. */
  readonly after: string | undefined;
}

/** How a vendor's format lists models. All functions are pure and never throw. */
export interface ModelListing {
  /** Path and query of a provider's list, or of its page after `after`. */
  path(after?: string): string;
  /** Headers, beside the credential, without which the vendor does not answer. */
  readonly headers: RawHeaders;
  /** A page out of a decoded body; undefined where that is none. */
  read(body: Buffer): ModelPage | undefined;
  /** The list as the vendor writes it, in JSON, the page that `query` asks for. */
  list(models: readonly ListedModel[], query: URLSearchParams): string;
  /** One model as the vendor writes it, in JSON. */
  one(model: ListedModel): string;
}
