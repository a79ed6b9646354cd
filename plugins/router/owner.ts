import { type ClientCredential, type Format, type Provider, speaks } from "@tokenman/plugin-sdk";
import { ConfiguredProvider } from "./configured-provider.ts";

/**
 * The position of the one provider that a client's credential may go to, or -1: the very first where the user vouched
 * for its server by writing `auth = "client"`, else the first that is at the vendor's own host. Either must speak the
 * client's format. An opaque request that no vendor claims (`format` undefined) has no owner: nobody knows whose it is.
 */
export function ownerOf(providers: readonly Provider[], format: Format | undefined): number {
  if (format === undefined) return -1;
  return providers.findIndex(
    (provider, index) =>
      provider.auth === "client" &&
      provider.answer === undefined &&
      speaks(provider, format.name) &&
      ((index === 0 && isVouchedFor(provider)) || isAtVendor(provider, format)),
  );
}

function isVouchedFor(provider: Provider): boolean {
  return provider instanceof ConfiguredProvider && provider.isTrusted;
}

/** Whether the provider, as the very first choice, would own the client's credential if its config said `auth = "client"`. */
export function awaitsVouching(provider: Provider, format: Format | undefined): boolean {
  return (
    provider instanceof ConfiguredProvider &&
    provider.isConfigured &&
    provider.auth === "client" &&
    !provider.isTrusted &&
    format !== undefined &&
    speaks(provider, format.name) &&
    !isAtVendor(provider, format)
  );
}

/**
 * The formats of other vendors, whose keys the owner must not see although they came on its path: an Anthropic key in
 * OpenAI's shape of a request, say. None where the owner is no vendor: a gateway that the user vouched for takes any.
 */
export function strangersTo(
  owner: Provider | undefined,
  format: Format,
  formats: readonly Format[],
): readonly Format[] {
  if (owner === undefined || !isAtVendor(owner, format)) return [];
  return formats.filter((each) => each !== format);
}

/** The vendor whose key the credential is by its shape, among those. */
export function strangerOf(strangers: readonly Format[], { secret }: ClientCredential): Format | undefined {
  if (strangers.length === 0) return undefined;
  const headers = ["authorization", `Bearer ${secret}`];
  return strangers.find((format) => format.claims(headers));
}

/** The vendor's own host, over TLS and on its usual port: whoever listens elsewhere may be anybody. */
function isAtVendor(provider: Provider, format: Format): boolean {
  const url = provider.apiBase === undefined ? null : URL.parse(provider.apiBase);
  return url?.protocol === "https:" && format.hosts.includes(url.host);
}
