//! A handler that does nothing, as a yardstick: what HTTP alone costs on this machine.

use super::fail;
use super::parent;
use anyhow::Context;
use axum::{Router, http::header};
use clap::Args;
use rustix::process::Signal;
use std::net::Ipv4Addr;

#[derive(Args, Debug)]
pub struct NoopArgs {
    #[arg(long)]
    pub port: u16,
    /// End with this process
    #[arg(long, hide = true)]
    pub with_parent: Option<u32>,
}

/// Answers every request with what a checkout would say.
///
/// # Errors
/// Where the port is taken.
pub fn run(args: &NoopArgs) -> anyhow::Result<()> {
    if let Some(parent) = args.with_parent {
        parent::die_with(parent, Signal::KILL)?;
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start a runtime")?;
    runtime.block_on(async {
        let listener =
            tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, args.port)).await.map_err(|error| {
                fail::impossible(format!("--port {}: cannot listen there ({error})", args.port))
            })?;
        let app = Router::new().fallback(|| async {
            ([(header::CONTENT_TYPE, "application/json")], r#"{"order_id":"0","paid":true,"total_cost":2}"#)
        });
        axum::serve(listener, app).await.context("the server failed")
    })
}
