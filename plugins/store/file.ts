/** Name of the database in the data folder. */
export const databaseFile = "ledger.db";
