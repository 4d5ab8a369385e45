//! The HTTP/2 side of an upstream: as much of RFC 9113 as an answer without header compression
//! takes. Request headers are not decoded.

use std::io::{self, Read, Write};

use super::upstream::Shared;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

/// Answers requests until the connection ends.
pub(super) fn serve(mut stream: impl Read + Write, shared: &Shared) -> io::Result<()> {
    let mut preface = [0; PREFACE.len()];
    stream.read_exact(&mut preface)?;
    if preface != PREFACE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "no HTTP/2"));
    }
    send(&mut stream, SETTINGS, 0, 0, &[])?;
    loop {
        let frame = read(&mut stream)?;
        match frame.kind {
            SETTINGS if frame.flags & ACK == 0 => send(&mut stream, SETTINGS, ACK, 0, &[])?,
            PING if frame.flags & ACK == 0 => send(&mut stream, PING, ACK, 0, &frame.payload)?,
            DATA if !frame.payload.is_empty() => refill(&mut stream, &frame)?,
            _ => {}
        }
        if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
            let status = shared.answer("");
            send(&mut stream, HEADERS, END_HEADERS, frame.stream, &status_field(status))?;
            send(&mut stream, DATA, END_STREAM, frame.stream, b"ok\n")?;
        }
        stream.flush()?;
    }
}

/// `:status` as RFC 7541 writes it without a table: index 8 names the field, the value is text.
fn status_field(status: u16) -> Vec<u8> {
    let text = status.to_string();
    [&[0x08, 0x03], text.as_bytes()].concat()
}

/// Gives the window of the connection and of the stream back.
fn refill(stream: &mut impl Write, frame: &Frame) -> io::Result<()> {
    let size = u32::try_from(frame.payload.len()).expect("24 bits").to_be_bytes();
    send(stream, WINDOW_UPDATE, 0, 0, &size)?;
    if frame.flags & END_STREAM == 0 {
        send(stream, WINDOW_UPDATE, 0, frame.stream, &size)?;
    }
    Ok(())
}

fn read(stream: &mut impl Read) -> io::Result<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).expect("24 bits")];
    stream.read_exact(&mut payload)?;
    let id = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
    Ok(Frame { kind: head[3], flags: head[4], stream: id, payload })
}

fn send(stream: &mut impl Write, kind: u8, flags: u8, id: u32, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).expect("a short frame").to_be_bytes();
    let head = [&length[1..], &[kind, flags], &id.to_be_bytes()].concat();
    stream.write_all(&[&head, payload].concat())
}
