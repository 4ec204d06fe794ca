// Socket.IO with the adapter that broadcasts through a Redis stream: node socketio.mjs PORT REDIS
import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-streams-adapter";
import Redis from "ioredis";
import { Server } from "socket.io";

const [port, redis] = process.argv.slice(2);
const http = createServer();
const io = new Server(http, {
  adapter: createAdapter(new Redis(redis), { maxLen: 10000 }),
  perMessageDeflate: false,
  transports: ["websocket"],
});
io.on("connection", (socket) => {
  socket.on("join", (room) => {
    socket.join(room);
    socket.emit("joined");
  });
  socket.on("hello", () => socket.emit("joined"));
  socket.on("publish", (room, payload) => io.to(room).emit("message", payload));
});
http.listen(Number(port), "127.0.0.1", () => {
  console.log(`Listening on ws://127.0.0.1:${http.address().port}`);
});
