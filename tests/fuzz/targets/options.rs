//! The options of a session's command: refused, or the same when they are written again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use supersync::wire::session::Options;

fuzz_target!(|bytes: &[u8]| {
    let Ok(options) = Options::parse(bytes) else { return };
    let again = options.encode().expect("what was read can be written");
    assert_eq!(Options::parse(&again), Ok(options));
});
