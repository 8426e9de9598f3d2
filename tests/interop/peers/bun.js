// Bun: its server, uWebSockets inside, and its client with the API of browsers.
"use strict";

const {HOST, role, port, subprotocols, tell, drive} = require("./lines.js");

const received = data => tell("message", {
    text: typeof data === "string",
    data: Buffer.from(data).toString("base64"),
});

const commands = ws => ({
    send({text, data}) {
        const bytes = Buffer.from(data, "base64");
        ws.send(text ? bytes.toString() : bytes, true);
        tell("sent");
    },
    ping() { ws.ping("theirs"); },
    close({code, reason}) { ws.close(code, reason); },
});

if (role === "client") {
    const ws = new WebSocket(`ws://${HOST}:${port}/`, subprotocols);
    ws.binaryType = "arraybuffer";
    ws.onopen = () => tell("open", {subprotocol: ws.protocol});
    ws.onmessage = ({data}) => received(data);
    ws.addEventListener("pong", ({data}) =>
        tell("pong", {data: Buffer.from(data).toString()}));
    ws.onclose = ({code, reason, wasClean}) => {
        if (!wasClean && code !== 1006) console.error("not clean");
        tell("closed", {code, reason});
    };
    drive(commands(ws));
} else {
    const server = Bun.serve({
        hostname: HOST,
        port: 0,
        fetch(request, server) {
            const offered = request.headers.get("Sec-WebSocket-Protocol") ?? "";
            const names = offered.split(",").map(name => name.trim());
            const chosen = subprotocols.find(name => names.includes(name)) ?? null;
            const headers = chosen ? {"Sec-WebSocket-Protocol": chosen} : {};
            server.upgrade(request, {headers, data: {chosen}});
        },
        websocket: {
            perMessageDeflate: true,
            idleTimeout: 0,
            sendPings: false,
            open(ws) {
                tell("open", {subprotocol: ws.data.chosen});
                drive(commands(ws));
            },
            message(ws, data) { received(data); },
            pong(ws, data) { tell("pong", {data: data.toString()}); },
            close(ws, code, reason) { tell("closed", {code, reason}); },
        },
    });
    tell("listening", {port: server.port});
}
