// ws, the WebSocket library of Node.
"use strict";

const WebSocket = require("ws");
const {HOST, role, port, subprotocols, tell, drive} = require("./lines.js");

const options = {perMessageDeflate: true, closeTimeout: 600000};

function run(ws) {
    ws.on("message", (data, isBinary) =>
        tell("message", {text: !isBinary, data: data.toString("base64")}));
    ws.on("pong", data => tell("pong", {data: data.toString()}));
    ws.on("error", error => console.error(error));
    ws.on("close", (code, reason) =>
        tell("closed", {code, reason: reason.toString()}));
    drive({
        send({text, data, fin}) {
            ws.send(Buffer.from(data, "base64"), {binary: !text, fin}, error => {
                if (error) console.error(error);
                tell("sent");
            });
        },
        ping() { ws.ping("theirs"); },
        close({code, reason}) { ws.close(code, reason); },
    });
}

if (role === "client") {
    const ws = new WebSocket(`ws://${HOST}:${port}/`, subprotocols, options);
    ws.on("open", () => tell("open", {subprotocol: ws.protocol}));
    run(ws);
} else {
    const handleProtocols = offered =>
        subprotocols.find(name => offered.has(name)) ?? false;
    const server = new WebSocket.Server(
        {host: HOST, port: 0, handleProtocols, ...options},
        () => tell("listening", {port: server.address().port}));
    server.on("connection", ws => {
        run(ws);
        tell("open", {subprotocol: ws.protocol});
    });
}
