// The article's server: what clients send is XADDed to a stream, a loop of XREAD BLOCK reads it
// back, and every client gets it. node article.mjs PORT REDIS one|rooms
//   one:    one stream, one loop, for all clients, as the article has it
//   rooms:  a stream, a loop and a Redis connection for each room, which it leaves to its reader
import Redis from "ioredis";
import { WebSocketServer } from "ws";

const [port, redis, form] = process.argv.slice(2);
const writer = new Redis(redis);
const rooms = new Map();

async function follow(room) {
  const reader = new Redis(redis);
  let last = "$";
  for (;;) {
    const reply = await reader.xread("COUNT", 100, "BLOCK", 5000, "STREAMS", room.key, last);
    if (reply === null) continue;
    for (const [id, fields] of reply[0][1]) {
      last = id;
      for (const client of room.clients) client.send(fields[1]);
    }
  }
}

function roomOf(path) {
  const key = form === "one" ? "article" : `article:${path}`;
  let room = rooms.get(key);
  if (room === undefined) {
    room = { key, clients: new Set() };
    rooms.set(key, room);
    follow(room);
  }
  return room;
}

const server = new WebSocketServer({ host: "127.0.0.1", port: Number(port), perMessageDeflate: false });
server.on("listening", () => console.log(`Listening on ws://127.0.0.1:${server.address().port}`));
server.on("connection", (client, request) => {
  const room = roomOf(request.url);
  room.clients.add(client);
  client.on("message", (data) => writer.xadd(room.key, "MAXLEN", "~", 10000, "*", "message", data.toString()));
  client.on("close", () => room.clients.delete(client));
});
