// A WebSocket client on npm's ws: client.mjs URL [SUBPROTOCOL]
// Each line of standard input is sent as a text frame; what happens is told as one JSON object a line.
import { createInterface } from 'node:readline';
import WebSocket from 'ws';

const [url, subprotocol] = process.argv.slice(2);
const tell = (event) => process.stdout.write(JSON.stringify(event) + '\n');
const socket = new WebSocket(url, subprotocol ? [subprotocol] : []);
socket.on('open', () => tell({ open: socket.protocol }));
socket.on('message', (data, binary) =>
  tell(binary ? { binary: data.toString('base64') } : { text: data.toString() }));
socket.on('close', (code, reason) => { tell({ close: code, reason: reason.toString() }); process.exit(0); });
socket.on('error', (error) => tell({ error: error.message }));
createInterface({ input: process.stdin }).on('line', (line) => socket.send(line)).on('close', () => socket.close());
