// What all pages do: uploads the chosen file, and shows its uid or what failed.
"use strict";

const { endpoint, token, query } = document.body.dataset;

// For each client; `more` are options from the page's address.
const settings = {
    endpoint,
    headers: { "X-CSRF-Token": token },
    chunkSize: 300_000,
    pause: 50,
    tries: 100_000,
    more: Object.fromEntries(new URLSearchParams(query)),
};

function uidIn(text) {
    return JSON.parse(text).uploadUid;
}

// Set by the scripts of clients that can.
let takeBack;

document.querySelector("button").addEventListener("click", () => takeBack());

document.querySelector("input").addEventListener("change", async (event) => {
    const output = document.querySelector("output");
    try {
        output.value = `arrived ${await upload(event.target.files[0], settings)}`;
    } catch (error) {
        output.value = `failed: ${error}`;
    }
});
