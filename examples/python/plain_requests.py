"""Loans for cars with nothing but HTTP and JSON: pip install requests

Prints what becomes of two loans asked by the names of their features, of the same loans as tensors, and of a mistake:

    repaid with 77 %, by car-loan version 1
    repaid with 85 %, by car-loan version 1
    as tensors: [1, 1]
    refused with 400: model 'car-loan' version 1: row 0: 'car_valu' is no input and no feature; did you mean ...
"""

import csv
import itertools
import json
import sys

import requests

server = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8000"
model = f"{server}/v2/models/car-loan"
numbers = {"car_value", "debt_to_income_ratio", "loan_length", "driver_tenure"}

with open("models/car-loan/samples.csv") as file:
    loans = [
        {key: float(value) if key in numbers else value for key, value in row.items() if key != "repaid"}
        for row in itertools.islice(csv.DictReader(file), 2)
    ]

answer = requests.post(f"{model}/predict", json=loans).json()
for row in answer["predictions"]:
    outcome = "repaid" if row["prediction"] == 1 else "not repaid"
    by = f"{answer['model_name']} version {answer['model_version']}"
    print(f"{outcome} with {round(100 * row['probability'])} %, by {by}")

with open("models/car-loan/request.json") as file:
    tensors = json.load(file)
outputs = requests.post(f"{model}/infer", json=tensors).json()["outputs"]
print(f"as tensors: {next(output['data'] for output in outputs if output['name'] == 'label')}")

mistake = {"car_valu" if key == "car_value" else key: value for key, value in loans[0].items()}
answer = requests.post(f"{model}/predict", json=mistake)
print(f"refused with {answer.status_code}: {answer.json()['error']}")
