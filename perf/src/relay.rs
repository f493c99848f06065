//! Moves bytes between two sockets and understands none of them: the floor that a proxy's
//! cost is compared with. Same runtime, same ring flags, `TCP_NODELAY` on both sides.

use std::{
    cell::Cell,
    io,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use monoio::{
    io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt, Splitable},
    net::{ListenerOpts, TcpListener, TcpStream},
};

use crate::clock;

/// Most relayed connections at a time; two descriptors each.
const CONNECTIONS_MAX: usize = 9_900;
/// Bytes that one read may take, for each direction of a connection.
const READ_BYTES: usize = 8 * 1024;
/// Pause after an accept that failed (descriptors used up), so that it is no busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Relays from `listen` to `to` until `end`. An accept may be pending then; the program
/// ends with it.
pub(crate) async fn serve(listen: SocketAddr, to: SocketAddr, end: Instant) -> io::Result<()> {
    let options = ListenerOpts::new().reuse_port(false).backlog(4_096);
    let listener = TcpListener::bind_with_config(listen, &options)?;
    let open = Rc::new(Cell::new(0_usize));
    while clock::now() < end {
        let Ok((client, _)) = listener.accept().await else {
            monoio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        if open.get() >= CONNECTIONS_MAX {
            continue;
        }
        open.set(open.get() + 1);
        let open = Rc::clone(&open);
        monoio::spawn(async move {
            // A provider that cannot be reached shows as a closed connection.
            let _ = join_streams(client, to).await;
            open.set(open.get() - 1);
        });
    }
    Ok(())
}

async fn join_streams(client: TcpStream, to: SocketAddr) -> io::Result<()> {
    client.set_nodelay(true)?;
    let provider = TcpStream::connect_addr(to).await?;
    provider.set_nodelay(true)?;
    let (client_read, client_write) = client.into_split();
    let (provider_read, provider_write) = provider.into_split();
    let up = monoio::spawn(copy(client_read, provider_write));
    copy(provider_read, client_write).await;
    up.await;
    Ok(())
}

/// Copies until the end or an error of either side, and passes the end on. A reset is
/// passed on as an end: the relay does not look, and nobody measures resets with it.
async fn copy(mut from: impl AsyncReadRent, mut to: impl AsyncWriteRent) {
    let mut buffer: Vec<u8> = Vec::with_capacity(READ_BYTES);
    loop {
        let (read, filled) = from.read(buffer).await;
        if !matches!(read, Ok(1..)) {
            break;
        }
        let (written, given_back) = to.write_all(filled).await;
        if written.is_err() {
            break;
        }
        buffer = given_back;
    }
    let _ = to.shutdown().await;
}
