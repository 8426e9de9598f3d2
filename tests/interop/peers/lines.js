// What the peers in JavaScript have in common: lines of JSON.
"use strict";

const readline = require("readline");

const [role, ...rest] = process.argv.slice(2);
exports.HOST = "127.0.0.1";
exports.role = role;
exports.port = role === "client" ? Number(rest.shift()) : undefined;
exports.subprotocols = rest;

exports.tell = (event, more) =>
    process.stdout.write(JSON.stringify({event, ...more}) + "\n");

exports.drive = (commands) =>
    readline.createInterface({input: process.stdin})
        .on("line", line => {
            const command = JSON.parse(line);
            commands[command.do](command);
        })
        .on("close", () => process.exit());
