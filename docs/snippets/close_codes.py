from trio_ws import CloseCode

for code in CloseCode:
    print(code.value, code.name)
