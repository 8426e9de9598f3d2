// undici: what Node itself calls WebSocket. A client, with the API of browsers.
"use strict";

const {WebSocket} = require("undici");
const {HOST, port, subprotocols, tell, drive} = require("./lines.js");

const ws = new WebSocket(`ws://${HOST}:${port}/`, subprotocols);
ws.binaryType = "arraybuffer";
ws.onopen = () => tell("open", {subprotocol: ws.protocol});
ws.onmessage = ({data}) => tell("message", {
    text: typeof data === "string",
    data: Buffer.from(data).toString("base64"),
});
ws.onclose = ({code, reason, wasClean}) => {
    if (!wasClean && code !== 1006) console.error("not clean");
    tell("closed", {code, reason});
};
drive({
    send({text, data}) {
        const bytes = Buffer.from(data, "base64");
        ws.send(text ? bytes.toString() : bytes);
        tell("sent");
    },
    close({code, reason}) { ws.close(code, reason); },
});
