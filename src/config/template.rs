//! The configs that `supersyncd init` writes.

use super::model::Role;

/// A config for `role` with every key explained; it parses as it is.
pub fn template(role: Role) -> &'static str {
    match role {
        Role::Trader => include_str!("templates/trader.toml"),
        Role::Exchange => include_str!("templates/exchange.toml"),
    }
}
