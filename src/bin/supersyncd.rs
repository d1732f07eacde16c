//! Runs a node (the full command line follows).
fn main() {
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr).init();
    let path = std::path::PathBuf::from(std::env::args().nth(2).expect("run FILE"));
    let config = supersync::config::load(&path).unwrap_or_else(|e| panic!("{e}"));
    if let Err(e) = supersync::node::run(config, path) {
        eprintln!("{e}");
        std::process::exit(1)
    }
}
