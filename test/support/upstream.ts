/** The SDK's test kit: the recording upstream, scripts and faults for it, gates, certificates. */
export * from "@tokenman/plugin-sdk/testkit";
