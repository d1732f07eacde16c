//! What the demo can be told.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;
use clap::builder::RangedU64ValueParser;

use crate::limits;
use crate::units::Rate;

/// What the demo can be told; every one has a default.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Segments of each trader [default: 48]; 500 with 1000000 records is the real job
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=limits::OBJECTS_MAX as i64))]
    pub(super) segments: Option<u32>,
    /// Records of each segment, 24 bytes each [default: 1000000]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) records: Option<u64>,
    /// Bytes of each trader, as 500MB, instead of --segments
    #[arg(long, value_name = "BYTES", value_parser = byte_count, conflicts_with = "segments")]
    pub(super) size: Option<u64>,
    /// What each link carries in a second, each way, as 1.5MB. Each link then leads through a forwarder of the demo
    /// that passes on no more than this: no root is needed, and there is no delay or loss. Without it: no limit
    #[arg(long, value_name = "BYTES", value_parser = link_rate)]
    pub(super) link_rate: Option<Rate>,
    /// Links between each exchange and each trader
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = up_to(limits::DEMO_LINKS_MAX))]
    pub(super) links: u16,
    /// Exchanges
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = up_to(limits::DEMO_EXCHANGES_MAX))]
    pub(super) exchanges: u16,
    /// Length of every packet
    #[arg(long, value_name = "BYTES", default_value_t = limits::PACKET_BYTES_DEFAULT,
          value_parser = clap::value_parser!(u32).range(limits::PACKET_BYTES_MIN as i64..=limits::PACKET_BYTES_MAX as i64))]
    pub(super) packet_bytes: u32,
    /// Leave the stores and the configs where they are, and say where
    #[arg(long)]
    pub(super) keep: bool,
    /// Make the demo's own directory in this one [default: that of temporary files]
    #[arg(long, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,
    /// Kill nothing on the way
    #[arg(long)]
    pub(super) no_chaos: bool,
    /// Makes other records; the same number makes the same ones
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(super) seed: u64,
}

fn up_to(most: u16) -> RangedU64ValueParser<u16> {
    RangedU64ValueParser::new().range(1..=u64::from(most))
}

fn byte_count(text: &str) -> Result<u64, String> {
    const FORM: &str = "write a number of bytes, as 500MB or 2GiB";
    match text.parse::<ByteSize>() {
        Ok(ByteSize(bytes)) if bytes > 0 => Ok(bytes),
        _ => Err(FORM.to_owned()),
    }
}

fn link_rate(text: &str) -> Result<Rate, String> {
    const MIN: u64 = 1000;
    let bytes = byte_count(text.strip_suffix("/s").unwrap_or(text))?;
    if bytes < MIN {
        return Err(format!("write at least {MIN} bytes a second"));
    }
    Ok(Rate(bytes as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_bytes_a_second() {
        let check = |text: &str, expected: Option<f64>| assert_eq!(link_rate(text).ok(), expected.map(Rate), "{text}");
        check("1.5MB", Some(1_500_000.0));
        check("1.5MB/s", Some(1_500_000.0));
        check("1000", Some(1000.0));
        check("999", None);
        check("0", None);
        check("fast", None);
        check("", None);
    }
}
